"""What is known of a run: its encoder, its corpus, its training, its probes; and no path."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import speechbrain
import torch

from .. import __version__
from ..evaluation.table import format_table
from ..huggingface.describing import is_held
from ..huggingface.source import HUB_ID
from ..inference.describing import describe_run
from ..inference.folder import MEASURED, is_exported
from ..inference.loading import encoder_of, load_pretrained
from ..inference.pretrained import PretrainedEncoder
from ..monitoring.report import plot_report, read_points
from ..recipe import find_hparams, load_run, without_seeding
from ..reporting.objective import MASKED, OBJECTIVES, STOCK
from ..training.needed_files import FOLDER as NEEDED
from ..training.resolve import HPARAMS, read_yaml

REPORT = "report.png"
# What a log point of the validation says of a model
MEASURES = ("loss", "accuracy", "code_perplexity_sum", "wer", "cer")


@dataclass
class Facts:
    """What is known of a run.

    Attributes
    ----------
    encoder : PretrainedEncoder
        With its weights.
    training : dict
        ``objective``, ``corpus`` (names of folders), ``hours_seen`` and the last ``validation``,
        as far as they are known.
    probes : list of str
        Tables of the probes of the run.
    draw_report : callable or None
        Draws the picture of the training into a file. None if the run has no log of codes.
    modules : dict
        The modules of the run by their names in its YAML, heads included.
    is_held : bool
        Whether the encoder is a model of transformers.
    """

    encoder: PretrainedEncoder
    training: dict[str, Any] = field(default_factory=dict)
    probes: list[str] = field(default_factory=list)
    draw_report: Callable[[str], object] | None = None
    modules: dict[str, Any] = field(default_factory=dict)
    is_held: bool = False


def read_facts(run_folder: str | os.PathLike[str]) -> Facts:
    """What is known of a run.

    Arguments
    ---------
    run_folder : str
        The ``output_folder``.

    Raises
    ------
    ValueError
        If it is not the folder of a run, has no whole checkpoint, or if a part of its own encoder
        cannot be exported.
    """
    from ..brains.stock import is_stock

    folder = os.fspath(run_folder)
    if is_exported(folder):
        raise ValueError(f"{folder} is exported already; give the output_folder of a run")
    path = find_hparams(folder)
    if is_stock(path):
        describe_run(path)
        return Facts(load_pretrained(folder), {"objective": STOCK})
    brain, hparams = load_run(folder, overrides=without_seeding(path))
    encoder = encoder_of(brain, path)
    held = is_held(encoder.encoder)
    if not held:
        describe_run(path)  # what cannot be exported is an error
    metrics = os.path.join(folder, "metrics.jsonl")
    # A run may have gone on after its last whole checkpoint.
    points = [point for point in read_points(metrics) if point["step"] <= brain.optimizer_step]
    facts = Facts(encoder, _training(type(brain).__name__, encoder, hparams, points))
    facts.modules = {name: brain.raw(name) for name in brain.modules}
    facts.is_held = held
    facts.probes = _probes(folder, brain.optimizer_step)
    counts = getattr(getattr(getattr(brain, "tally", None), "run", None), "counts", None)
    if counts is not None and os.path.isfile(metrics):
        title = facts.training["objective"]
        # Not a copy: the picture in the folder of the run has that folder in its title.
        facts.draw_report = lambda file: plot_report(
            metrics, np.asarray(counts.cpu()), file, title, hparams.get("warmup_steps") or 0
        )
    return facts


def about_model(encoder: PretrainedEncoder, training: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a model in its card, and in the ``config.json`` of a folder of our own.

    Arguments
    ---------
    encoder : PretrainedEncoder
        The model.
    training : Mapping
        What is known of its training, for readers.
    """
    versions = {
        "brainquant": __version__,
        "speechbrain": speechbrain.__version__,
        "torch": torch.__version__.partition("+")[0],
    }
    return {
        "made_by": f"brainquant {__version__}",
        "fingerprint": encoder.fingerprint(),
        "step": encoder.step,
        **{key: getattr(encoder, key) for key in MEASURED},
        "training": {**training, "versions": versions},
    }


def _training(
    brain: str, encoder: PretrainedEncoder, hparams: Mapping[str, Any], points: list[dict[str, Any]]
) -> dict[str, Any]:
    training: dict[str, Any] = {
        "objective": OBJECTIVES.get(brain, brain),
        "corpus": corpus_names(hparams),
    }
    if is_held(encoder.encoder):
        if brain == "BestRQBrain":
            training["objective"] = MASKED
        if model := base_model(hparams):
            training["base_model"] = model
    if seconds := seconds_seen(points, 1 / encoder.frame_rate):
        training["hours_seen"] = round(seconds / 3600, 2)
    validations = [point for point in points if point.get("stage") == "valid"]
    if validations:
        last = validations[-1]
        known = {key: last.get(key) for key in MEASURES}  # null: a number that is not known
        training["validation"] = {key: value for key, value in known.items() if value is not None}
    return training


def corpus_names(hparams: Mapping[str, Any]) -> list[str]:
    """Names of the folder and of the splits of a corpus, without the way to them.

    Example
    -------
    >>> corpus_names({"data_folder": "/data/LibriSpeech/", "train_splits": ["train-clean-100"]})
    ['LibriSpeech', 'train-clean-100']
    """
    folder = hparams.get("source") or hparams.get("data_folder") or ""
    names = [os.path.basename(os.path.normpath(str(folder))), *(hparams.get("train_splits") or ())]
    return _public(map(str, names))


def base_model(hparams: Mapping[str, Any]) -> str | None:
    """The public model that a run continues: its Hub id, or the name of its folder.

    Of a fine-tuning, it is the model that the pretraining has continued, if that is known. The
    copies in the folder of the run say whether ``user/name`` was an id or a folder.

    Example
    -------
    >>> base_model({"model": "/data/my_hubert/"}), base_model({"model": "models/my_hubert"})
    ('my_hubert', 'my_hubert')
    """
    model, kept = hparams.get("model"), Path(hparams.get("output_folder", ""), NEEDED)
    if model is None and not hparams.get("from_scratch"):
        model = hparams.get("pretrained")
        for path in kept.glob(f"*/{HPARAMS}"):
            model = read_yaml(path).get("model", model)
    if not isinstance(model, str):
        return None
    if any(path.read_text("utf-8") == model for path in kept.rglob(HUB_ID)):
        return model
    return next(iter(_public([os.path.basename(os.path.normpath(model))])), None)


def _public(names: Iterable[str]) -> list[str]:
    """The names that say nothing of the user or the machine."""
    private = {socket.gethostname(), "", ".", ".."}
    try:
        private.add(getpass.getuser())
    except (ImportError, KeyError, OSError):  # a container without the user's entry
        pass
    return [name for name in names if name not in private and name.isprintable()]


def seconds_seen(points: list[dict[str, Any]], frame_seconds: float) -> float:
    """Seconds of speech in the batches of a pretraining, from its log; 0 if it does not say.

    A log point counts the masked frames since the one before, and has their share of all.

    Example
    -------
    >>> seconds_seen([{"stage": "train", "frames": 100, "masked_ratio": 0.5}], 0.04)
    8.0
    """
    trained = [point for point in points if point.get("stage") == "train"]
    logged = [p for p in trained if p.get("masked_ratio") and p.get("frames")]
    return sum(point["frames"] / point["masked_ratio"] for point in logged) * frame_seconds


def _probes(folder: str, step: int) -> list[str]:
    """The tables of the probes in the folder of a run, without that of another step."""
    tables = []
    evaluated = Path(folder, "evaluated_at_step.txt")
    is_old = evaluated.is_file() and evaluated.read_text("utf-8").strip() != str(step)
    phones = [] if is_old else Path(folder).glob("phones.json")
    for path in sorted([*phones, *Path(folder).glob("probe_*.json")]):
        try:
            tables.append(format_table(json.loads(path.read_text("utf-8"))))
        except (KeyError, TypeError, ValueError):  # a file of somebody else, or of an older version
            continue
    return tables
