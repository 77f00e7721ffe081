"""Ends a rank after torchrun, its launcher, has died, so that its folder is free again."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .family import ask_for_signal_when_parent_ends
from .signals import say

# Read early, because the launcher may die while modules are imported.
PARENT = os.getppid()
POLL_SECONDS = 1.0
SECONDS_TO_END = 45  # enough for a step and a checkpoint; then the rank is ended


def launcher() -> int | None:
    """Process number of the torchrun that started this rank; None if there is none.

    Only torchrun counts: a shell that starts a rank by hand may end before the rank.
    """
    return PARENT if "TORCHELASTIC_RUN_ID" in os.environ else None


def launcher_has_ended() -> bool:
    """Whether torchrun started this process and has ended before it."""
    return launcher() not in (None, os.getppid())


@contextmanager
def end_with_launcher() -> Iterator[None]:
    """Stops this rank as SIGTERM does when torchrun ends; kills it 45 seconds later.

    Usually torchrun ends its ranks when it gets a signal. But torchrun can be killed, or get a
    second signal while it waits for its ranks.
    """
    if launcher() is None:
        yield
        return
    done = threading.Event()
    threading.Thread(target=_watch, args=[done], name="launcher watch", daemon=True).start()
    # Wakes a rank that SIGSTOP has stopped, so that it notices. Others ignore SIGCONT.
    ask_for_signal_when_parent_ends(signal.SIGCONT)
    try:
        yield
    finally:
        if not launcher_has_ended():  # otherwise the thread watches until the program has ended
            done.set()


def _watch(done):
    while not done.wait(POLL_SECONDS):
        if launcher_has_ended():
            say(f"{end_of_launcher()}: this rank stops as after SIGTERM")
            os.kill(os.getpid(), signal.SIGTERM)
            if not done.wait(SECONDS_TO_END):
                say(f"error: the rank could not stop within {SECONDS_TO_END} s; ended at once")
                os._exit(1)
            return


def end_of_launcher() -> str:
    """What has happened, for a message."""
    return f"the end of torchrun (process {launcher()})"
