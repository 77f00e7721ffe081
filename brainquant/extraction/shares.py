"""The share of this process in the work, and processes that take the other shares."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..data.workers import leave_signals_to_main
from ..errors import error_line, rank_from_environment
from ..processes.family import stop_signals_wait
from ..processes.signals import say

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID")


class Share(NamedTuple):
    """Every ``ranks``-th part, from number ``rank`` on."""

    rank: int = 0
    ranks: int = 1


def share_of_launcher() -> Share | None:
    """The share that torchrun or srun has given this process; None if neither started it.

    A script of sbatch has the variable SLURM_PROCID, too, but only processes of srun have
    SLURM_STEP_NUM_TASKS.

    Example
    -------
    >>> share_of_launcher() is None
    True
    """
    if "LOCAL_RANK" in os.environ:
        return Share(*rank_from_environment())
    if "SLURM_STEP_NUM_TASKS" in os.environ and "SLURM_PROCID" in os.environ:
        return Share(int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_STEP_NUM_TASKS"]))
    return None


def local_rank() -> int:
    """The number of this process on its machine, to choose a GPU."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hides the launcher from SpeechBrain, whose Brain wants ranks that train together.

    Here each process encodes for itself.
    """
    hidden = {name: os.environ.pop(name) for name in RANK_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextlib.contextmanager
def other_processes(
    work_on: Callable[[Share], object], ranks: int, *, fork: bool
) -> Iterator[None]:
    """Runs the other shares in processes of their own, and waits for them at the end.

    Arguments
    ---------
    work_on : callable
        Works on a share. It can be pickled, unless ``fork``.
    ranks : int
        The number of shares; this process takes the first.
    fork : bool
        Whether to copy this process: quick, and with the same memory. Otherwise a new one imports
        all modules.

    Raises
    ------
    ValueError
        If one of them has failed. It has shown its own error.
    """
    context: Any = multiprocessing.get_context("fork" if fork else "spawn")
    others = [
        context.Process(target=_child, args=(work_on, Share(rank, ranks)), daemon=True)
        for rank in range(1, ranks)
    ]
    with stop_signals_wait():  # until each has its own handlers
        for other in others:
            other.start()
    try:
        yield
        for other in others:
            other.join()
    except BaseException:
        for other in others:
            other.kill()
        raise
    if failed := [other for other in others if other.exitcode]:
        code = failed[0].exitcode or 0
        how = f"with status {code}" if code > 0 else f"by {signal.Signals(-code).name}"
        raise ValueError(
            f"{len(failed)} of {ranks} processes ended {how} before their share was done; if the "
            f"machine is short of memory, give a lower --num_processes: the same command goes on"
        )


def _child(work_on: Callable[[Share], object], share: Share) -> None:
    leave_signals_to_main(share.rank)
    try:
        work_on(share)
    except ValueError as error:
        say(error_line(error))
        sys.exit(1)
