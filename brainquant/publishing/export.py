"""Writes the encoder of a run as a folder that is data: config, weights, model card."""

from __future__ import annotations

import json
import os
from typing import Any

from safetensors.torch import save_file

from ..inference.folder import CONFIG, FORMAT, WEIGHTS, open_folder
from ..inference.pretrained import PretrainedEncoder
from ..inference.speechbrain import hyperparams_yaml
from .card import model_card
from .facts import REPORT, about_model, read_facts
from .loading_text import how_to_load
from .new_folder import new_folder, umask, write


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
        if facts.is_held:
            raise ValueError(
                f"{os.fspath(run_folder)} has a model of transformers, which is given away as one; "
                f"add --format transformers"
            )
        config = write_model(folder, facts.encoder, facts.training)
        write(folder, "hyperparams.yaml", hyperparams_yaml(config))
        if facts.draw_report:
            facts.draw_report(os.path.join(folder, REPORT))
        card = model_card(
            facts, config, how_to_load(config), title=title, license=license, language=language
        )
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
    about = about_model(encoder, training)
    config = {
        "format": FORMAT,
        **{key: value for key, value in about.items() if key != "training"},
        "architecture": encoder.description,
        "training": about["training"],
    }
    weights = os.path.join(folder, WEIGHTS)
    parts = "encoder.", "quantiser."  # and no k-means that somebody has added
    tensors = {
        name: tensor.contiguous().clone()
        for name, tensor in encoder.state_dict().items()
        if name.startswith(parts)
    }
    save_file(tensors, weights, {"format": "pt"})
    os.chmod(weights, 0o666 & ~umask())  # the library makes a file that only its owner reads
    write(folder, CONFIG, json.dumps(config, indent=1) + "\n")
    return config
