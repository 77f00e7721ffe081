"""Says how a loader's worker has died, and at which clip."""

import signal
import time
from contextlib import contextmanager, suppress

from ..data.workers import ReadableClips
from ..errors import RunError


@contextmanager
def explain_lost_workers(*loaders):
    """Raises a RunError in place of torch's error where a worker of a loader has died.

    torch raises a RuntimeError in the main thread, wherever that is. If the main thread is fetching
    a batch at that moment, it gets an OSError or EOFError from the connection first.

    Arguments
    ---------
    *loaders : torch.utils.data.DataLoader or None
        Of ``make_loaders``.
    """
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        line = _find_lost_worker(loaders, 0.0 if isinstance(error, RuntimeError) else 2.0)
        if line is None:
            raise
        raise RunError(line) from error


def _find_lost_worker(loaders, seconds):
    """What to say of a worker that has died, or does so within some seconds; None without one."""
    until = time.monotonic() + seconds
    while True:
        with suppress(RuntimeError):  # torch's, of a worker that dies now
            for loader in loaders:
                for number, worker in enumerate(_workers(loader)):
                    if worker.exitcode is not None:
                        return _lost_worker(loader, number, worker)
            if time.monotonic() >= until:
                return None
            time.sleep(0.05)


def _workers(loader):
    # Of persistent workers; a loader that none has iterated over yet has no iterator.
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
        }.get(worker.exitcode, "if it is that clip each time, take it out of the manifest")
    return f"a loader worker (process {worker.pid}) {how}; {clip}; {remedy}"
