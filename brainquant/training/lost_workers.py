"""Says how a loader's worker has died, and at which clip."""

import signal
from contextlib import contextmanager

from .errors import RunError


@contextmanager
def explain_lost_workers(*loaders):
    """Raises a RunError in place of torch's error where a worker of a loader has died.

    torch raises a RuntimeError in the main thread, wherever that is.

    Arguments
    ---------
    *loaders : torch.utils.data.DataLoader or None
        Of ``make_loaders``.
    """
    try:
        yield
    except RuntimeError as error:
        for loader in loaders:
            for number, worker in enumerate(_workers(loader)):
                if worker.exitcode is not None:
                    raise RunError(_lost_worker(loader, number, worker)) from error
        raise


def _workers(loader):
    # Of persistent workers; a loader that none has iterated over yet has no iterator.
    return getattr(getattr(loader, "_iterator", None), "_workers", ())


def _lost_worker(loader, number, worker):
    clip = loader.dataset.last_clip_of(number)
    clip = "it had begun no clip" if clip is None else f"the last clip that it began is {clip!r}"
    if worker.exitcode >= 0:
        how, remedy = f"ended with exit status {worker.exitcode}", "set num_workers: 0 to see why"
    else:
        how = f"was killed by {signal.Signals(-worker.exitcode).name}"
        remedy = {
            -signal.SIGKILL: "if the machine was short of memory, set num_workers: lower",
            -signal.SIGBUS: "make /dev/shm larger, or set num_workers: lower",
        }.get(worker.exitcode, "if it is that clip each time, take it out of the manifest")
    return f"a loader worker (process {worker.pid}) {how}; {clip}; {remedy}"
