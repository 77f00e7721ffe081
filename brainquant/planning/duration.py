"""How long a run takes, and what it spends its time and the disk on."""

from __future__ import annotations

import datetime
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from speechbrain.utils.logger import get_logger

from .besides import (
    FORWARD_SHARE,
    measure_checkpoint,
    measure_quality,
    measure_validation,
    num_quality,
)
from .duration_lines import find_in_duration, lines_of
from .length import Length, clip_seconds, run_length
from .reading import reading_speeds
from .section import Section
from .trial_steps import Trial

logger = get_logger(__name__)

WORKERS = 0, 2, 4


class Pace(NamedTuple):
    """How fast a trial has trained.

    Attributes
    ----------
    step_seconds : float
        Of an average step, without reading.
    is_measured : bool
        Whether these were steps of the recipe's own batches; if not, they were smaller.
    """

    step_seconds: float
    is_measured: bool


def plan_duration(
    brain: Any,
    hparams: dict[str, Any],
    train_loader: Any,
    valid_loader: Any,
    trial: Trial,
    *,
    seconds: float,
    folder: Path,
    output_folder: str,
) -> Section:
    """The part of a plan about time, and about checkpoints on the disk.

    Arguments
    ---------
    brain : RunBrain
        Validates, and writes a checkpoint.
    hparams : dict
        What ``load_hparams`` gives.
    train_loader, valid_loader : torch.utils.data.DataLoader
        Of ``make_loaders``; ``valid_loader`` may be None.
    trial : Trial
        Its steps.
    seconds : float
        Time for the measurements.
    folder : pathlib.Path
        Does not exist yet; a checkpoint is tried there.
    output_folder : str
        The folder of the run, which is not touched.

    Raises
    ------
    ValueError
        If the trial has made no steps.
    """
    length = run_length(brain, hparams, train_loader)
    pace = pace_of(trial, length)
    workers = brain.hparams.num_workers
    speeds = reading_speeds(train_loader, sorted({*WORKERS, workers}), seconds=seconds / 2)
    waits = {
        number: waiting(pace.step_seconds, length.speech_of_step / speed, number)
        for number, speed in speeds.items()
    }
    step = pace.step_seconds / (1 - waits.get(workers, 0.0))
    forward = FORWARD_SHARE * pace.step_seconds / length.padded_of_epoch * length.steps_of_epoch
    validation = quality = 0.0
    if valid_loader is not None:
        validation = _try(
            lambda: measure_validation(brain, valid_loader, seconds=seconds / 4),
            forward * sum(clip_seconds(valid_loader)),
        )
        quality = _try(lambda: measure_quality(brain, train_loader, valid_loader), 0.0)
    checkpoint, checkpoint_bytes = _try(lambda: measure_checkpoint(brain, folder), (0.0, 0))

    epochs = math.ceil(length.passes)
    saves = epochs * saves_of_epoch(brain, length, step)
    measured = num_quality(length, getattr(getattr(brain, "quality", None), "interval", math.inf))
    parts = {
        "before_the_first_step": trial.before_steps_seconds,
        "steps": length.steps * pace.step_seconds,
        "waiting_for_audio": length.steps * (step - pace.step_seconds),
        "validations": epochs * validation,
        "quality": measured * quality,
        "checkpoints": saves * checkpoint,
    }
    total = sum(parts.values())
    facts: dict[str, Any] = {
        "steps_per_second": 1 / step,
        "speech_per_second": length.speech_of_step / step,
        "measured_on_own_batches": pace.is_measured,
        "steps": length.steps,
        "ended_by": length.ended_by,
        "steps_of_epoch": length.steps_of_epoch,
        "speech_seconds_of_step": length.speech_of_step,
        "passes": length.passes,
        "seconds": total,
        "seconds_of_parts": parts,
        "done_at_if_begun_now": done_at(total),
        "validations": epochs if valid_loader is not None else 0,
        "seconds_of_validation": validation,
        "num_workers": workers,
        "reading_speech_per_second": {str(number): speed for number, speed in speeds.items()},
        "share_of_time_waiting": {str(number): share for number, share in waits.items()},
        "checkpoints": saves,
        "checkpoint_bytes": checkpoint_bytes,
        "checkpoint_seconds": checkpoint,
        "checkpoints_kept": kept_checkpoints(brain, saves),
        "free_bytes": free_bytes(output_folder),
        "output_folder": output_folder,
    }
    return Section("Time", facts, lines_of(facts), find_in_duration(facts))


def _try(measure: Callable[[], Any], otherwise: Any) -> Any:
    """A measurement; if it fails, an estimate, and a line in the log."""
    try:
        return measure()
    except Exception as error:  # what a Brain of somebody else does is not known
        logger.warning(f"Not measured: {type(error).__name__}: {error}")
        return otherwise


def pace_of(trial: Trial, length: Length) -> Pace:
    """The seconds of an average step of an epoch, which grow with its padded speech.

    Where only small steps were made, a line through the smallest and the largest is followed.

    Raises
    ------
    ValueError
        If the trial has made no steps.
    """
    wanted = length.padded_of_epoch / length.steps_of_epoch
    if trial.pace:
        taken = sum(step.seconds for step in trial.pace)
        return Pace(taken / sum(step.padded_seconds for step in trial.pace) * wanted, True)
    if not trial.steps:
        raise ValueError("the trial has made no step; give it more time with --minutes")
    small, large = (of(trial.steps, key=lambda step: step.padded_seconds) for of in (min, max))
    more = large.padded_seconds - small.padded_seconds
    slope = (large.seconds - small.seconds) / more if more else 0.0
    if slope <= 0:
        return Pace(large.seconds / large.padded_seconds * wanted, False)
    seconds = large.seconds + slope * (wanted - large.padded_seconds)
    return Pace(max(seconds, small.seconds / 10), False)


def waiting(step: float, reading: float, workers: int) -> float:
    """The share of the time in which a training waits for audio.

    Arguments
    ---------
    step : float
        Seconds of a step, without reading.
    reading : float
        Seconds in which so many workers read the clips of a step.
    workers : int
        0: the main process reads, and computes nothing meanwhile.

    Example
    -------
    >>> waiting(3.0, 1.0, workers=0), waiting(3.0, 1.0, workers=2), waiting(3.0, 4.0, workers=2)
    (0.25, 0.0, 0.25)
    """
    waits = reading if workers == 0 else max(0.0, reading - step)
    return waits / (step + waits)


def saves_of_epoch(brain: Any, length: Length, step: float) -> int:
    """Checkpoints of an epoch: at its end, and at intervals that count from its start."""
    if brain.checkpointer is None:
        return 0
    saves = 1
    if (minutes := brain.ckpt_interval_minutes) > 0:
        saves += int(length.steps_of_epoch * step // (60 * minutes))
    if (batches := brain.ckpt_interval_steps) > 0:
        saves += length.batches_of_epoch // batches
    return saves


def kept_checkpoints(brain: Any, saves: int) -> int:
    """The most checkpoints that are on the disk at once.

    ``keep_checkpoints`` of the newest, of the best and of those within an epoch, and one that is
    being written.
    """
    if brain.checkpointer is None:
        return 0
    return min(3 * brain.hparams.keep_checkpoints + 1, saves)


def free_bytes(output_folder: str) -> int:
    """Free space where a run will write, with the checkpoints that it has there already."""
    path = Path(os.path.abspath(output_folder))
    there = sum(file.stat().st_size for file in path.glob("save/CKPT*/*") if file.is_file())
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free + there


def done_at(seconds: float) -> str | None:
    """When so many seconds will have passed, in ISO 8601; None after the calendar's end."""
    try:
        then = datetime.datetime.now().astimezone() + datetime.timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return None
    return then.isoformat(timespec="minutes")
