"""Opens a trained encoder, wherever it is."""

from __future__ import annotations

import os
from typing import Any

import torch

from ..huggingface.describing import describe_held, is_held
from ..huggingface.folder import is_held_model
from ..quantisers import Quantiser
from .folder import CONFIG, is_exported, open_folder
from .pretrained import PretrainedEncoder

HPARAMS = "hyperparams.yaml"  # in the folder of a run


def load_pretrained(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    device: str | torch.device = "cpu",
) -> PretrainedEncoder:
    """A trained encoder, in evaluation mode.

    An exported folder is data: nothing in it is executed. The folder of a run has a YAML file,
    which is code: open only your own runs, or those of people whom you trust.

    Arguments
    ---------
    source : str or os.PathLike
        The ``output_folder`` of a run, whose last whole checkpoint is loaded; a folder that
        ``brainquant export`` wrote; a folder of transformers with a wav2vec 2.0, HuBERT, WavLM,
        data2vec or w2v-BERT 2.0 model, which needs ``brainquant[hf]``; a ``.pt`` file of fairseq;
        or the ID of such a model on the Hugging Face Hub, as in ``user/name``, which needs
        ``brainquant[hub]``. A folder never uses the network.
    revision : str or None
        Branch, tag or commit of a model on the Hub.
    device : str or torch.device
        Where to put it.

    Returns
    -------
    encoder : PretrainedEncoder

    Raises
    ------
    ValueError
        If there is no such model, or if it is damaged or unsafe.

    Example
    -------
    >>> load_pretrained(getfixture("tmp_path"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ... is neither the folder of a run nor an exported one: it has no config.json ...
    """
    folder: str = os.fspath(source)
    if not os.path.exists(folder):
        from ..huggingface.source import download_model

        folder = download_model(folder, revision)
    elif revision is not None:
        raise ValueError(
            f"revision is for models of the Hub, got revision={revision!r} for the folder {folder}"
        )
    if is_exported(folder) or is_held_model(folder):
        return open_data(folder).to(device)
    if os.path.isfile(os.path.join(folder, HPARAMS)):
        return _open_run(folder).to(device)
    raise ValueError(
        f"{folder} is neither the folder of a run nor an exported one: it has no {CONFIG} and no "
        f"{HPARAMS}; give the output_folder: that train.py has written to, or what brainquant "
        f"export has written"
    )


def open_data(folder: str | os.PathLike[str]) -> PretrainedEncoder:
    """The encoder in a folder that is data: one of transformers, or one of our own format.

    Errors are those of ``open_folder`` and of ``brainquant.inference.held.open_held``.
    """
    if not is_held_model(folder):
        return open_folder(folder)
    from .held import open_held

    return open_held(os.fspath(folder))


def _open_run(folder: str) -> PretrainedEncoder:
    # The only place that imports training: an exported folder needs none of it.
    from ..brains.stock import is_stock, stock_encoder
    from ..recipe import load_run, without_seeding

    path = os.path.join(folder, HPARAMS)
    changes = without_seeding(path)
    if is_stock(path):
        return PretrainedEncoder(stock_encoder(path, changes), description=_describe(path))
    brain, _ = load_run(folder, overrides=changes)
    return encoder_of(brain, path)


def encoder_of(brain: Any, hparams_file: str) -> PretrainedEncoder:
    """The encoder and the quantiser of a Brain, whose YAML with all values is ``hparams_file``."""
    encoder, quantiser = brain.raw("encoder"), quantiser_of(brain)
    if is_held(encoder):
        description = describe_held(encoder, quantiser)
    else:
        description = _describe(hparams_file)
    return PretrainedEncoder(encoder, quantiser, step=brain.optimizer_step, description=description)


def quantiser_of(brain: Any) -> Quantiser | None:
    """The quantiser of a Brain that its encoder is used with; None if there is none.

    One that reads more than the encoder's inputs, such as a teacher, is left out.
    """
    quantiser = brain.raw("quantiser") if "quantiser" in brain.modules else None
    return quantiser if quantiser is not None and quantiser.reads_inputs else None


def _describe(hparams_file: str) -> dict[str, Any]:
    """What the modules of a run are made of, as data; the text of its YAML where that fails."""
    from .describing import describe_run

    try:
        return describe_run(hparams_file)
    except ValueError:  # a class that cannot be exported can be used
        with open(hparams_file, encoding="utf-8") as file:
            return {"yaml": file.read()}
