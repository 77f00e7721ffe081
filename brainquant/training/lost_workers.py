"""Says how a worker of a loader has died, and at which clip."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..data.workers import ReadableClips
from ..errors import RunError


@contextmanager
def explain_lost_workers(*loaders: Any) -> Iterator[None]:
    """Replaces torch's error by a RunError if a worker of a loader has died.

    torch raises a RuntimeError in the main thread, whatever that is doing. If the main thread is
    fetching a batch at that moment, the connection first raises an OSError or EOFError there.

    Arguments
    ---------
    *loaders : torch.utils.data.DataLoader or None
        Loaders of ``make_loaders``.
    """
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        line = _find_lost_worker(loaders, 0.0 if isinstance(error, RuntimeError) else 2.0)
        if line is None:
            raise
        raise RunError(line) from error


def _find_lost_worker(loaders, seconds):
    """Describes a worker that has died, or dies within some seconds; None if none does."""
    until = time.monotonic() + seconds
    while True:
        with suppress(RuntimeError):  # torch's error, if a worker dies now
            for loader in loaders:
                for number, worker in enumerate(_workers(loader)):
                    if worker.exitcode is not None:
                        return _lost_worker(loader, number, worker)
            if time.monotonic() >= until:
                return None
            time.sleep(0.05)


def _workers(loader):
    # Persistent workers. A loader has no iterator before its first epoch.
    return getattr(getattr(loader, "_iterator", None), "_workers", ())


def _lost_worker(loader, number, worker):
    dataset = loader.dataset
    clip = dataset.last_clip_of(number) if isinstance(dataset, ReadableClips) else None
    clip = "its clip is not known" if clip is None else f"the last clip that it began is {clip!r}"
    if worker.exitcode >= 0:
        how, remedy = f"ended with exit status {worker.exitcode}", "set num_workers: 0 to see why"
    else:
        how = f"was killed by {signal.Signals(-worker.exitcode).name}"
        remedy = {
            -signal.SIGKILL: "if the machine was short of memory, set num_workers: lower",
            -signal.SIGBUS: "make /dev/shm larger, or set num_workers: lower",
        }.get(worker.exitcode, "if it is that clip each time, remove it from the manifest")
    return f"a loader worker (process {worker.pid}) {how}; {clip}; {remedy}"
