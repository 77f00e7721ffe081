"""Writes the encoder of a run as a folder that is data: config, weights, model card."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import speechbrain
import torch
from safetensors.torch import save_file

from .. import __version__
from ..inference.folder import CONFIG, FORMAT, MEASURED, WEIGHTS, open_folder
from ..inference.pretrained import PretrainedEncoder
from ..inference.speechbrain import hyperparams_yaml
from .card import model_card
from .facts import REPORT, read_facts


def export(
    run_folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    title: str | None = None,
    license: str | None = None,
    language: str | None = None,
) -> PretrainedEncoder:
    """Writes the encoder of a run, with its quantiser, into a folder to give away.

    The folder has ``config.json`` and ``model.safetensors`` for ``brainquant.load_pretrained``,
    ``hyperparams.yaml`` for SpeechBrain's ``from_hparams``, a model card as ``README.md``, and the
    picture of the training as ``report.png``. It has no optimiser, no head, and no path, user or
    host name of this machine. The folder is opened before it gets its name.

    Arguments
    ---------
    run_folder : str
        The ``output_folder`` of a pretraining or of a fine-tuning. The last whole checkpoint is
        taken.
    output : str
        A folder that does not exist yet, or is empty, or holds this very export.
    title : str or None
        Heading of the card. None makes one of the objective and the corpus.
    license : str or None
        The licence of the weights as the Hub writes it: ``apache-2.0``, ``cc-by-4.0``.
    language : str or None
        Languages of the speech as the Hub writes them: ``en``, or ``en,de``.

    Returns
    -------
    encoder : PretrainedEncoder
        What the folder holds, opened.

    Raises
    ------
    ValueError
        If the run has no checkpoint or a class of your own, or if ``output`` has other content.
    """
    with new_folder(output) as folder:
        facts = read_facts(run_folder)
        config = write_model(folder, facts.encoder, facts.training)
        write(folder, "hyperparams.yaml", hyperparams_yaml(config))
        if facts.draw_report:
            facts.draw_report(os.path.join(folder, REPORT))
        card = model_card(facts, config, title=title, license=license, language=language)
        write(folder, "README.md", card)
        return open_folder(folder)


def write_model(
    folder: str, encoder: PretrainedEncoder, training: dict[str, Any]
) -> dict[str, Any]:
    """Writes what ``load_pretrained`` reads, and gives the content of ``config.json``.

    Arguments
    ---------
    folder : str
        Exists.
    encoder : PretrainedEncoder
        Its ``description`` is what ``describe_run`` gives.
    training : dict
        What is known of the training, for readers.
    """
    versions = {
        "brainquant": __version__,
        "speechbrain": speechbrain.__version__,
        "torch": torch.__version__.partition("+")[0],
    }
    config = {
        "format": FORMAT,
        "made_by": f"brainquant {__version__}",
        "fingerprint": encoder.fingerprint(),
        "step": encoder.step,
        **{key: getattr(encoder, key) for key in MEASURED},
        "architecture": encoder.description,
        "training": {**training, "versions": versions},
    }
    weights = os.path.join(folder, WEIGHTS)
    parts = "encoder.", "quantiser."  # and no k-means that somebody has added
    tensors = {
        name: tensor.contiguous().clone()
        for name, tensor in encoder.state_dict().items()
        if name.startswith(parts)
    }
    save_file(tensors, weights, {"format": "pt"})
    os.chmod(weights, 0o666 & ~_umask())  # the library makes a file that only its owner reads
    write(folder, CONFIG, json.dumps(config, indent=1) + "\n")
    return config


def write(folder: str, name: str, text: str) -> None:
    """Writes a text file."""
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text)


@contextmanager
def new_folder(output: str | os.PathLike[str]) -> Iterator[str]:
    """A folder beside the output, which gets its name at the end; nothing is left after an error.

    Raises
    ------
    ValueError
        If there is something else under that name. A folder with the same files is left alone.

    Example
    -------
    >>> output = getfixture("tmp_path") / "model"
    >>> with new_folder(output) as folder:
    ...     write(folder, "README.md", "Hello")
    >>> os.listdir(output)
    ['README.md']
    >>> with new_folder(output) as folder:  # doctest: +ELLIPSIS
    ...     write(folder, "README.md", "Bye")
    Traceback (most recent call last):
    ValueError: --output ...model exists and has other content; give the name of a new folder
    """
    path = os.path.abspath(output)
    refusal = f"--output {output} exists and has other content; give the name of a new folder"
    if os.path.lexists(path) and not os.path.isdir(path):
        raise ValueError(refusal)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        folder = tempfile.mkdtemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path))
    except OSError as error:
        raise ValueError(f"--output {output}: {error.strerror}; give another path") from error
    try:
        os.chmod(folder, 0o777 & ~_umask())
        yield folder
        if os.path.isdir(path) and os.listdir(path):
            names = sorted(os.listdir(folder))
            same = sorted(os.listdir(path)) == names
            if not same or filecmp.cmpfiles(path, folder, names, shallow=False)[0] != names:
                raise ValueError(refusal)
        else:
            os.rename(folder, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
