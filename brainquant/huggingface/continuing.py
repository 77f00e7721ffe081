"""A public model as the modules of a Brain: what the YAMLs of a continued pretraining call."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import RunError
from ..quantisers import GumbelVectorQuantizer
from .bert_encoder import W2vBertEncoder
from .describing import READ
from .encoder import HuggingFaceEncoder
from .loading import load_model, read_config
from .source import CONFIG, HUB_ID, PREPROCESSOR, Source, find_model, write_description


class Wav2Vec2Parts(NamedTuple):
    """The modules of a ``Wav2Vec2Brain``, from a ``Wav2Vec2ForPreTraining``."""

    encoder: HuggingFaceEncoder
    quantiser: GumbelVectorQuantizer
    target_proj: torch.nn.Linear  # project_q
    context_proj: torch.nn.Linear  # project_hid


def load_wav2vec2(
    model: str,
    *,
    temp_tuple: Sequence[float],
    revision: str | None = None,
    gradient_scale: float = 1.0,
    freeze_extractor: bool = False,
    weights: bool = True,
) -> Wav2Vec2Parts:
    """The modules of a ``Wav2Vec2ForPreTraining``, for ``!apply:`` in a YAML.

    Encoder and projections are transformers' own modules. The quantiser is our
    ``GumbelVectorQuantizer`` with its code vectors and scores.

    Arguments
    ---------
    model : str
        A folder of transformers, a Hub id such as ``facebook/wav2vec2-base``, or a ``.pt`` file of
        fairseq.
    temp_tuple : sequence of float
        Temperatures of the quantiser: (start, stop, decay). No file of transformers has one; a
        model that was trained to the end was at its lowest, 0.5 for the base model.
    revision : str or None
        Branch, tag or commit on the Hub.
    gradient_scale, freeze_extractor : object
        As for ``HuggingFaceEncoder``.
    weights : bool
        False leaves the parameters random, because a checkpoint will have them. The copy of the
        YAML in the folder of a run says so.

    Returns
    -------
    parts : Wav2Vec2Parts

    Raises
    ------
    ValueError
        If the model cannot be loaded, or has no quantiser.
    """
    source = find_model(model, revision)
    held = load_model(source, pretraining=True, weights=weights)
    quantiser = _quantiser(held, temp_tuple)
    parts = Wav2Vec2Parts(
        HuggingFaceEncoder(
            held.wav2vec2,
            sample_rate=source.sample_rate,
            do_normalize=source.do_normalize,
            gradient_scale=gradient_scale,
            freeze_extractor=freeze_extractor,
            input_dropout=held.config.feat_quantizer_dropout,
        ),
        quantiser,
        held.project_q,
        held.project_hid,
    )
    _finish(parts.encoder, source, weights, "with its quantiser and projections")
    return parts


def load_encoder(
    model: str,
    *,
    revision: str | None = None,
    targets: torch.nn.Module | None = None,
    gradient_scale: float = 1.0,
    freeze_extractor: bool = False,
    weights: bool = True,
) -> HuggingFaceEncoder | W2vBertEncoder:
    """The encoder of a public model, without heads, for ``!apply:`` in a YAML.

    Arguments
    ---------
    model, revision, gradient_scale, freeze_extractor, weights : object
        As for ``load_wav2vec2``; any wav2vec 2.0, HuBERT, WavLM, data2vec or w2v-BERT 2.0 model.
        The last has no convolutions below its layers.
    targets : torch.nn.Module or None
        As for ``HuggingFaceEncoder``.

    Raises
    ------
    ValueError
        If the model cannot be loaded.
    """
    source = find_model(model, revision)
    encoder = hold(
        source,
        targets=targets,
        gradient_scale=gradient_scale,
        freeze_extractor=freeze_extractor,
        weights=weights,
    )
    _finish(encoder, source, weights, "the encoder only: quantiser and head are new")
    return encoder


def hold(
    source: Source,
    *,
    targets: torch.nn.Module | None = None,
    gradient_scale: float = 1.0,
    freeze_extractor: bool = False,
    weights: bool = True,
) -> HuggingFaceEncoder | W2vBertEncoder:
    """The encoder of a folder of transformers; see ``load_encoder``."""
    held = load_model(source, weights=weights)
    if held.config.model_type == "wav2vec2-bert":
        if freeze_extractor:
            raise ValueError(
                f"freeze_extractor is True, but {source.folder} is a w2v-BERT model, which has no "
                f"convolutions below its layers; leave out --freeze_extractor"
            )
        return W2vBertEncoder(held, sample_rate=source.sample_rate, targets=targets)
    return HuggingFaceEncoder(
        held,
        sample_rate=source.sample_rate,
        do_normalize=source.do_normalize,
        targets=targets,
        gradient_scale=gradient_scale,
        freeze_extractor=freeze_extractor,
    )


def _quantiser(held: Any, temp_tuple: Sequence[float]) -> GumbelVectorQuantizer:
    """Our quantiser with the code vectors and scores of transformers'."""
    config = held.config
    with torch.random.fork_rng(devices=[]):
        quantiser = GumbelVectorQuantizer(
            config.conv_dim[-1],
            config.num_codevectors_per_group,
            temp_tuple,
            config.num_codevector_groups,
            config.codevector_dim,
        )
    scores = held.quantizer.weight_proj
    with torch.no_grad():
        quantiser.vars.copy_(held.quantizer.codevectors)
        quantiser.weight_proj.load_state_dict(scores.state_dict())
    return quantiser


def _finish(
    encoder: HuggingFaceEncoder | W2vBertEncoder, source: Source, weights: bool, extent: str
) -> None:
    encoder.lacks_weights = not weights
    encoder.origin = (
        f"{source.folder}: {type(encoder.model).__name__}, {len(encoder.layers)} layers, "
        f"{encoder.dim} wide, {extent}"
    )


def keep_model(
    argument: str, model: str, kept: str, arguments: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Copies what builds a public model: the ``files_needed`` of the functions above.

    Its weights are in the checkpoints of the run.

    Arguments
    ---------
    argument : str
        The argument that names the model.
    model : str
        The folder, the Hub id or the file.
    kept : str
        The folder of the copy, which is made once.
    arguments : dict
        All arguments of the call.

    Returns
    -------
    arguments : dict or None
        Arguments that use the copy; None if there is neither a model nor a copy.

    Raises
    ------
    RunError
        If the folder or file has another configuration than the copy.
    """
    is_kept = os.path.isfile(os.path.join(kept, CONFIG))
    if not is_kept or os.path.exists(model):  # a Hub id is asked for once
        try:
            source = find_model(model, arguments.get("revision"))
        except ValueError:
            return {argument: kept, "weights": False} if is_kept else None
        if is_kept:
            _refuse_another(source, find_model(kept))
        else:
            _copy(source, kept, hub_id=None if os.path.exists(model) else model)
    return {argument: kept, "weights": False}


def _copy(source: Source, kept: str, hub_id: str | None) -> None:
    os.makedirs(kept, exist_ok=True)
    if hub_id is not None:  # later nobody knows whether user/name was a folder
        Path(kept, HUB_ID).write_text(hub_id, "utf-8")
    if source.state is not None:
        write_description(source, kept)
        return
    for name in (PREPROCESSOR, CONFIG):  # the config last: with it the copy is whole
        if os.path.isfile(path := os.path.join(source.folder, name)):
            shutil.copyfile(path, os.path.join(kept, name))


def _refuse_another(source: Source, copy: Source) -> None:
    """Raises a RunError if the weights of a run would become part of another model."""
    now, then = (
        {key: getattr(read_config(one), key, None) for key in READ}
        | {"sampling_rate": one.sample_rate, "do_normalize": one.do_normalize}
        for one in (source, copy)
    )
    if changed := [key for key in then if now[key] != then[key]]:
        key = changed[0]
        raise RunError(
            f"model: {source.folder} has changed since the run began: {key} is {now[key]!s:.50}, "
            f"and was {then[key]!s:.50}; move it away (the run goes on with its copy, "
            f"{copy.folder}), or begin in a new output_folder:"
        )


for _function in (load_wav2vec2, load_encoder):
    _function.files_needed = {"model": keep_model}  # pyright: ignore[reportFunctionMemberAccess]
