"""Runs of SpeechBrain's own two recipes of self-supervised learning, to be continued.

The recipes are those of SpeechBrain 1.1.2 in
``recipes/LibriSpeech/self-supervised-learning/{BEST-RQ,wav2vec2}``. The ``hyperparams.yaml`` of a
run says how its modules are built, and building executes what it names: give runs of your own only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from typing import Any, NamedTuple

import ruamel.yaml
import torch
from hyperpyyaml import load_hyperpyyaml

from ..models.best_rq import BestRQEncoder
from ..models.wav2vec2 import Wav2Vec2Encoder
from ..quantisers import GumbelVectorQuantizer, RandomProjectionQuantizer
from ..training.resolve import HPARAMS
from .stock import load_last, make_encoder, recoverables

BEST_RQ = ("CNN", "wrapper", "normalize", "Quantizer", "linear")
WAV2VEC2 = ("latent_extractor", "latent_encoder", "target_quantiser", "feat_proj")
# SpeechBrain's classes, and ours with the same state
OURS = {
    "speechbrain.lobes.models.wav2vec.W2VLatentExtractor": "brainquant.models.Wav2Vec2Extractor",
    "speechbrain.lobes.models.wav2vec.EncoderWrapper": "brainquant.models.MaskingEncoder",
}
WITHOUT = ("__set_seed", "checkpointer")  # keys of a YAML that do more than build the modules


class BestRQParts(NamedTuple):
    """The modules of a ``BestRQBrain``."""

    encoder: BestRQEncoder
    quantiser: RandomProjectionQuantizer
    head: torch.nn.Module


class Wav2Vec2Parts(NamedTuple):
    """The modules of a ``Wav2Vec2Brain``."""

    encoder: Wav2Vec2Encoder
    quantiser: GumbelVectorQuantizer
    target_proj: torch.nn.Module
    context_proj: torch.nn.Module


def load_best_rq(model: str, *, weights: bool = True) -> BestRQParts:
    """The modules of a run of SpeechBrain's BEST-RQ recipe, for ``!apply:`` in a YAML.

    The encoder reads chunks if ``streaming:`` of that run says so. The tables of the quantiser and
    the statistics of a global normalisation are those of the run, and stay as they are.

    Arguments
    ---------
    model : str
        The ``output_folder`` of the run.
    weights : bool
        Whether to load its last whole checkpoint. False leaves the parameters random, because a
        checkpoint of the new run will have them; the copy of the YAML in its folder says so.

    Raises
    ------
    ValueError
        If the folder is not that of such a run, or has no whole checkpoint.
    """
    with torch.random.fork_rng(devices=[]):  # a run draws the same with weights and without
        hparams = _build(model, BEST_RQ, "BEST-RQ")
        modules = hparams["modules"]
        encoder, head = make_encoder(hparams, in_chunks=True), modules["linear"]
        (input_dim, cb_dim), codes = modules["Quantizer"].P.shape, len(modules["Quantizer"].CB)
        quantiser = RandomProjectionQuantizer(input_dim, cb_dim, codes)
    if weights:
        load_last({**recoverables(encoder), "quantizer": quantiser, "linear": head}, model)
    encoder.prepare_finetuning()  # the normalisation keeps its statistics
    _finish(encoder, model, weights)
    return BestRQParts(encoder, quantiser, head)


def load_wav2vec2(
    model: str,
    *,
    gradient_scale: float = 1.0,
    freeze_extractor: bool = False,
    weights: bool = True,
) -> Wav2Vec2Parts:
    """The modules of a run of SpeechBrain's wav2vec 2.0 recipe, for ``!apply:`` in a YAML.

    The temperature of the quantiser stays at the lowest that the run's YAML has.

    Arguments
    ---------
    model, weights : object
        As for ``load_best_rq``.
    gradient_scale : float
        Factor of the gradient that reaches the extractor.
    freeze_extractor : bool
        Whether the extractor is not trained.

    Raises
    ------
    ValueError
        If the folder is not that of such a run, or has no whole checkpoint.
    """
    with torch.random.fork_rng(devices=[]):
        hparams = _build(model, WAV2VEC2, "wav2vec 2.0")
        modules = {name: hparams["modules"][name] for name in WAV2VEC2}
        extractor, transformer, target_quantiser, context_proj = modules.values()
        extractor.gradient_scale = gradient_scale
        encoder = Wav2Vec2Encoder(extractor, transformer, hparams.get("sample_rate", 16000))
        stock = target_quantiser.quantiser
        quantiser = GumbelVectorQuantizer(
            extractor.out_dim,
            stock.num_vars,
            (stock.min_temp, stock.min_temp, 1.0),
            stock.groups,
            target_quantiser.proj.in_features,
        )
    if weights:
        load_last(modules, model)
        quantiser.load_state_dict(stock.state_dict())
    extractor.requires_grad_(not freeze_extractor)
    _finish(encoder, model, weights)
    return Wav2Vec2Parts(encoder, quantiser, target_quantiser.proj, context_proj)


def _build(model: str, needed: Collection[str], recipe: str) -> dict[str, Any]:
    """The objects of a run's YAML, without its checkpointer."""
    path = os.path.join(model, HPARAMS)
    refusal = f"model: {model} is not the folder of a run of SpeechBrain's {recipe} recipe"
    if not os.path.isfile(path):
        raise ValueError(f"{refusal}: it has no {HPARAMS}; give the output_folder: of that run")
    text = own_classes(path)
    document = ruamel.yaml.YAML().load(text)
    modules = document.get("modules")
    lacking = [name for name in needed if name not in (modules or ())]
    if lacking:
        raise ValueError(
            f"{refusal}: its modules: have no {', '.join(lacking)}; give the output_folder: of "
            f"that recipe, or begin_from: for a run of brainquant"
        )
    return load_hyperpyyaml(text, dict.fromkeys(name for name in WITHOUT if name in document))


def own_classes(hparams_file: str) -> str:
    """The text of a run's YAML with our classes in the place of SpeechBrain's."""
    with open(hparams_file, encoding="utf-8") as file:
        text = file.read()
    for theirs, ours in OURS.items():
        text = text.replace(f"!new:{theirs}", f"!new:{ours}")
    return text


def _finish(encoder: BestRQEncoder | Wav2Vec2Encoder, model: str, weights: bool) -> None:
    encoder.lacks_weights = not weights
    encoder.origin = (
        f"{model}: {type(encoder).__name__}, {len(encoder.layers)} layers, {encoder.dim} wide, "
        f"with its quantiser and heads"
    )


def keep_run(argument: str, model: str, kept: str) -> dict[str, Any] | None:
    """Copies the YAML of a run of SpeechBrain: the ``files_needed`` of the functions above.

    Its weights are in the checkpoints of the new run.

    Arguments
    ---------
    argument : str
        The argument that names the run.
    model : str
        The folder of the run.
    kept : str
        The folder of the copy, which is made once.

    Returns
    -------
    arguments : dict or None
        Arguments that use the copy; None if there is neither a run nor a copy.
    """
    if not os.path.isfile(os.path.join(kept, HPARAMS)):
        if not os.path.isfile(path := os.path.join(model, HPARAMS)):
            return None
        os.makedirs(kept, exist_ok=True)
        shutil.copyfile(path, os.path.join(kept, HPARAMS))
    return {argument: kept, "weights": False}


for _function in (load_best_rq, load_wav2vec2):
    _function.files_needed = {"model": keep_run}  # pyright: ignore[reportFunctionMemberAccess]
