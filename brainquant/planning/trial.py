"""A trial of a recipe: real optimiser steps in a process of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .capacity import Capacity, machine_capacity
from .trial_steps import Trial, TrialStep

__all__ = ["Trial", "TrialStep", "run_trial"]

GRACE = 15.0  # seconds for the last step, where earlier ones have said enough
PATIENCE = 60.0  # seconds for what is not measured: imports, manifests, the fit of a quantiser


def run_trial(argv: Sequence[str], *, seconds: float) -> Trial:
    """Trains a recipe for some steps, in a process of its own, to see what they need.

    The Brain, its optimiser and its batches are those of the run, on one process without loader
    workers; their memory is not in the result. Nothing is logged and nothing is saved.

    Arguments
    ---------
    argv : sequence of str
        What the recipe's ``train.py`` takes: the YAML file, then options. Give ``--output_folder``
        a temporary folder: what a run writes before its first step goes there.
    seconds : float
        When to end, from now. A step that has begun ends later.

    Raises
    ------
    ValueError
        If the recipe cannot be trained, with its own message, or if the process was killed.
    TimeoutError
        If it took far too long to make its first steps.
    """
    values = run_in_process("steps", argv, seconds=seconds, capacity=machine_capacity())
    return Trial.from_json(values)


def run_in_process(
    task: str, argv: Sequence[str], *, seconds: float, capacity: Capacity | None
) -> dict[str, Any]:
    """Runs ``brainquant.planning.trial_process``, and returns the values that it writes.

    Arguments
    ---------
    task : str
        The name of a function in ``trial_process.TASKS``.
    argv : sequence of str
        The recipe and its options.
    seconds : float
        When to end, from now.
    capacity : Capacity or None
        The memory of this machine.
    """
    with tempfile.TemporaryDirectory(prefix="brainquant_trial_") as folder:
        request = Path(folder, "request.json")
        values = {"task": task, "argv": [*argv], "seconds": seconds, "capacity": capacity}
        request.write_text(json.dumps(values), "utf-8")
        command = [sys.executable, "-m", "brainquant.planning.trial_process", folder]
        result = Path(folder, "result.json")
        with open(Path(folder, "output"), "w+", encoding="utf-8", errors="replace") as output:
            # A later process group would not get Ctrl-C; this one ends with its parent.
            process = subprocess.Popen(command, stdout=output, stderr=output)
            try:
                status = wait(process, result, seconds)
            except subprocess.TimeoutExpired:
                raise TimeoutError(
                    f"the trial of {argv[0]} was not over after {2 * seconds + PATIENCE:.0f} s, in "
                    f"{doing(folder)}; give it more time with --minutes 10"
                ) from None
            finally:
                process.kill()
                process.wait()
            output.seek(0)
            said = output.read()
        if status == 0 and result.is_file():
            return json.loads(result.read_text("utf-8"))
        raise ValueError(failure(status, said, doing(folder)))


def wait(process: subprocess.Popen, result: Path, seconds: float) -> int:
    """The status of a process, which is 0 if it has gone on for too long but has a result."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(seconds + GRACE)
    return 0 if result.is_file() else process.wait(seconds + PATIENCE - GRACE)


def doing(folder: str | os.PathLike[str]) -> str:
    """What the process noted that it was doing."""
    path = Path(folder, "doing")
    return path.read_text("utf-8") if path.is_file() else "its start"


def failure(status: int, said: str, doing: str) -> str:
    """One line about a trial that failed.

    Arguments
    ---------
    status : int
        Of the process; below 0 it is the number of a signal.
    said : str
        What it has written.
    doing : str
        What it was doing.

    Example
    -------
    >>> failure(1, "INFO reading\\nerror: lr: -1 is not above 0\\n", "its start")
    'lr: -1 is not above 0'
    >>> failure(-9, "", "a step of 3 clips").split(";")[0]
    'the trial was killed (SIGKILL) in a step of 3 clips, most likely for its memory'
    """
    if status == -signal.SIGKILL:
        return (
            f"the trial was killed (SIGKILL) in {doing}, most likely for its memory; set "
            f"batch_seconds: lower and grad_accumulation_factor: higher, or end other programs"
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "it has said nothing"
    for line in reversed(lines):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    if status < 0:
        last = f"{signal.Signals(-status).name}; its last line: {last}"
    return f"the trial ended in {doing}: {last}"
