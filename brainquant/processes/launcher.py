"""Ends a rank whose launcher has died: it must not train on, nor keep others out of its folder."""

import os
import signal
import threading
from contextlib import contextmanager

from .family import ask_for_signal_when_parent_ends
from .signals import say

# As early as can be: the launcher may die while modules are imported.
PARENT = os.getppid()
POLL_SECONDS = 1.0
SECONDS_TO_END = 45  # for a step and a checkpoint; then the rank is ended


def launcher():
    """Process number of the torchrun that has started this one; None where there is none.

    Others than torchrun are not watched: a shell that has started a rank by hand may end first.
    """
    return PARENT if "TORCHELASTIC_RUN_ID" in os.environ else None


def launcher_has_ended():
    """Whether this process is a rank that its torchrun has left behind."""
    return launcher() not in (None, os.getppid())


@contextmanager
def end_with_launcher():
    """Stops this rank, as SIGTERM does, when its launcher ends; and ends it 45 seconds later.

    A launcher that gets a signal ends its ranks first. But it can be killed, or get a second signal
    while it waits for them.
    """
    if launcher() is None:
        yield
        return
    done = threading.Event()
    threading.Thread(target=_watch, args=[done], name="launcher watch", daemon=True).start()
    # A rank that is stopped (SIGSTOP) could not notice; one that is not is not disturbed.
    ask_for_signal_when_parent_ends(signal.SIGCONT)
    try:
        yield
    finally:
        if not launcher_has_ended():  # else the watch goes on until the program has ended
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


def end_of_launcher():
    """What has happened, for a message."""
    return f"the end of torchrun (process {launcher()})"
