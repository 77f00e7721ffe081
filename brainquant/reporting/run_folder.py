"""The folder of a run, read without trust: nothing in it is executed, loaded or changed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.after_training import MARKER
from ..monitoring.health import verdict
from ..training.resolve import HPARAMS
from ..training.run_lock import is_held
from .folder_files import LEFT_OUT, METRICS, PHONES, PROBES, RATES, FolderFiles
from .objective import STOCK, codebooks_of, objective_of
from .probes import Probe, read_probe
from .run_files import (
    KeptCheckpoint,
    attempt,
    number_of,
    printable,
    read_checkpoints,
    read_error_rate,
    read_left_out,
    read_log,
    read_options,
    read_text,
    read_values,
    read_versions,
)


@dataclass(frozen=True)
class RunFolder:
    """What the folder of a run says.

    Attributes
    ----------
    name : str
        Its short name; several runs have different names, see ``read_runs``.
    folder : str
        Its path.
    points : list of dict
        The log, as ``brainquant.monitoring.points.read_points`` gives it.
    values : dict of str to str
        All keys of its YAML with their values, see ``brainquant.training.values_by_key``.
    options : dict of str to str
        The run options that were in force, as far as its log has them: device, precision.
    versions : dict of str to str
        Versions of Python and of packages, as far as they are known.
    recipe : str
        The recipe's YAML that it was made from; empty if it is not known.
    objective : str
        "BEST-RQ", "wav2vec 2.0" and so on; "unknown" of a folder of another program.
    left_out : list of dict
        The clips (``kind`` "clip", ``id``) and steps ("step") that training left out: ``step`` and
        ``reason``.
    probes : list of Probe
        Results of probes.
    error_rates : dict of str to float
        Word error rates in per cent by the name of the test.
    checkpoints : list of KeptCheckpoint
        What it has kept.
    verdict : tuple of (str, str)
        Its health, as ``brainquant.monitoring.health.verdict`` gives it.
    steps, step_limit : int, int or None
        Optimiser steps so far, and at its end.
    state : str
        "going on", "finished", "interrupted", "not started", or "unknown" without a limit.
    run_seconds, speech_seconds : float or None
        Time and training speech so far; logs of older versions do not have them.
    remarks : list of str
        What is missing or damaged, a line each.
    """

    name: str
    folder: str
    points: list[dict[str, Any]]
    values: dict[str, str]
    options: dict[str, str]
    versions: dict[str, str]
    recipe: str
    objective: str
    left_out: list[dict[str, Any]]
    probes: list[Probe]
    error_rates: dict[str, float]
    checkpoints: list[KeptCheckpoint]
    verdict: tuple[str, str]
    steps: int
    step_limit: int | None
    state: str
    run_seconds: float | None
    speech_seconds: float | None
    remarks: list[str]


def read_run(folder: str | os.PathLike[str]) -> RunFolder:
    """Reads the folder of a run, also of one that goes on; what is damaged becomes a remark.

    Arguments
    ---------
    folder : str
        The ``output_folder`` of a run.

    Raises
    ------
    ValueError
        If there is nothing of a run that could be shown; one line with the remedy.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "metrics.jsonl").write_text('{"step": 5, "stage": "valid", "loss": 2.5}')
    >>> run = read_run(folder)
    >>> run.steps, run.verdict, run.remarks[0]
    (5, ('valid loss 2.50', 'unknown'), 'hyperparams.yaml is missing: its keys are not known')
    """
    path = Path(folder)
    files = FolderFiles(path)
    values, recipe = files.read(HPARAMS, _read_hparams, ({}, ""))
    points = files.read(METRICS, read_log, [])
    left_out, damaged = files.read(LEFT_OUT, read_left_out, ([], 0))
    options = read_options(files.read("log.txt", read_text, ""))
    probes = {name: files.read(name, read_probe, None) for name in files.matching(PROBES)}
    rates = {name[4:-4]: files.read(name, _read_rate, None) for name in files.matching(RATES)}
    checkpoints = attempt(files.remarks, "save", partial(read_checkpoints, path / "save"), [])
    limit = _whole(options.get("optimizer_step_limit") or values.get("optimizer_step_limit"))
    counted = [point["step"] for point in points]
    steps = int(max(counted + [kept.step or 0 for kept in checkpoints], default=0))
    objective = objective_of(values)
    files.remark(HPARAMS not in files.names, f"{HPARAMS} is missing: its keys are not known")
    files.remark(METRICS not in files.names, _without_log(objective))
    files.remark(damaged > 0, f"{LEFT_OUT} has {damaged:,} damaged lines")
    evaluated = _whole(files.read(MARKER, read_text, ""))
    is_old = evaluated not in (None, steps) and PHONES in probes
    files.remark(is_old, f"{PHONES} is of step {evaluated or 0:,}, the log ends at step {steps:,}")
    untimed = bool(points) and _last(points, "run_seconds") is None
    files.remark(untimed, "its log is of an older version: the time is not known")
    return RunFolder(
        name=printable(path.absolute().name),
        folder=os.fspath(folder),
        points=points,
        values=values,
        options=options,
        versions=read_versions(files.read("env.log", read_text, "")),
        recipe=recipe,
        objective=objective,
        left_out=left_out,
        probes=[probe for probe in probes.values() if probe is not None],
        error_rates={name: rate for name, rate in rates.items() if rate is not None},
        checkpoints=checkpoints,
        verdict=_verdict(points, values, files.remarks),
        steps=steps,
        step_limit=limit,
        state=_state(path, points, values, steps, limit),
        run_seconds=_last(points, "run_seconds"),
        speech_seconds=_last(points, "speech_seconds"),
        remarks=files.remarks,
    )


def _read_hparams(path):
    """The values of hyperparams.yaml, and the recipe that its head names."""
    source = re.match(r"# Generated .* from:\n# (.*)\n", read_text(path))
    return read_values(path), source[1] if source else ""


def _read_rate(path):
    return read_error_rate(read_text(path))


def _without_log(objective):
    if objective == STOCK:
        return f"SpeechBrain's recipe writes no {METRICS}: its numbers are in its train_log.txt"
    return f"{METRICS} is missing: nothing was logged yet, or it is the run of another program"


def _verdict(points, values, remarks):
    """The health, with codes as in the log: the counts of the whole run are in a checkpoint."""
    counts_GV = np.broadcast_to(np.zeros((), int), codebooks_of(points))
    warmup = _whole(values.get("warmup_steps")) or 0
    judge = partial(verdict, points, counts_GV, warmup)
    return attempt(remarks, "the health", judge, ("not known", "unknown"))


def _state(path, points, values, steps, limit):
    if is_held(path):
        return "going on"
    epochs, last = _whole(values.get("number_of_epochs")), points[-1] if points else {}
    ended = epochs and last.get("stage") != "train" and (number_of(last, "epoch") or 0) >= epochs
    if ended or (limit is not None and 0 < limit <= steps):
        return "finished"
    if not steps:
        return "not started"
    return "unknown" if limit is None else "interrupted"


def _last(points, key):
    known = [number_of(point, key) for point in points if number_of(point, key) is not None]
    return known[-1] if known else None


def _whole(text):
    """The whole number of a text, or None."""
    return int(text) if text and re.fullmatch(r"\s*\d{1,15}\s*", text) else None
