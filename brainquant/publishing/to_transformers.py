"""Writes a continued model as a folder that transformers loads."""

from __future__ import annotations

import os

from ..huggingface.folder import WEIGHTS, reads_padding, save_folder
from ..inference.held import open_held
from ..inference.pretrained import PretrainedEncoder
from ..inference.speechbrain import hyperparams_yaml
from .card import model_card
from .facts import REPORT, about_model, read_facts
from .loading_text import how_to_load_in_transformers
from .new_folder import new_folder, umask, write

HEADS = ("quantiser", "target_proj", "context_proj")  # of a Wav2Vec2Brain


def export_to_transformers(
    run_folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    title: str | None = None,
    license: str | None = None,
    language: str | None = None,
) -> PretrainedEncoder:
    """Writes the model of a continued run into a folder that ``from_pretrained`` loads.

    A wav2vec 2.0 that was continued with its quantiser becomes a ``Wav2Vec2ForPreTraining``; any
    other model its encoder, without heads. The folder has ``config.json``, ``model.safetensors``
    and ``preprocessor_config.json`` for transformers, ``hyperparams.yaml`` for SpeechBrain's
    ``from_hparams``, a model card as ``README.md``, and the picture of the training as
    ``report.png``. It has no optimiser and no path, user or host name of this machine. The folder
    is opened before it gets its name.

    Arguments
    ---------
    run_folder : str
        The ``output_folder`` of a run that continues a model of transformers, or fine-tunes one.
        The last whole checkpoint is taken.
    output, title, license, language : object
        As for ``brainquant.publishing.export.export``.

    Returns
    -------
    encoder : PretrainedEncoder
        What the folder holds, opened.

    Raises
    ------
    ValueError
        If the run has no checkpoint or no model of transformers, or if ``output`` has other
        content.
    """
    with new_folder(output) as folder:
        facts = read_facts(run_folder)
        if not facts.is_held:
            raise ValueError(
                f"{os.fspath(run_folder)} is no run that continues a model of transformers, and "
                f"only these have --format transformers; leave out --format"
            )
        modules = facts.modules
        heads = [modules[name] for name in HEADS if all(name in modules for name in HEADS)]
        class_name = save_folder(folder, modules["encoder"], *heads)
        os.chmod(os.path.join(folder, WEIGHTS), 0o666 & ~umask())
        opened = open_held(folder)
        opened.step = facts.encoder.step
        facts.encoder = opened  # the card says what the folder has
        about = about_model(opened, facts.training)
        write(folder, "hyperparams.yaml", hyperparams_yaml(about))
        if facts.draw_report:
            facts.draw_report(os.path.join(folder, REPORT))
        how_to_load = how_to_load_in_transformers(
            about, class_name, reads_padding=reads_padding(modules["encoder"])
        )
        card = model_card(
            facts, about, how_to_load, library="transformers",
            title=title, license=license, language=language,
        )  # fmt: skip
        write(folder, "README.md", card)
        return opened
