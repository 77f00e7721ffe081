"""Stop signals: a program ends with one line, or a training ends after a step and a checkpoint."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .family import STOP_SIGNALS, exit_at_once, wake_workers

# A launcher may deliver one Ctrl-C twice: the terminal sends it to all processes, and the
# launcher passes it on.
REPEATED_SECONDS = 1.0


class Stopped(SystemExit):
    """A signal has ended the program; ``status`` is the exit status.

    Arguments
    ---------
    name : str
        Name of the signal.
    line : str or None
        The line to show; None if the program has already shown one.
    """

    def __init__(self, name: str, line: str | None = None):
        self.status = exit_status(name)
        self.line = line
        super().__init__(self.status)


def exit_status(name: str) -> int:
    """The exit status of a program that a signal has ended: 128 and the signal's number.

    Shells use the same rule. SIGUSR1 gives the status of SIGTERM, because a scheduler means the
    same by both.

    Example
    -------
    >>> exit_status("SIGINT"), exit_status("SIGTERM"), exit_status("SIGHUP")
    (130, 143, 129)
    >>> exit_status("SIGUSR1")
    143
    """
    return 128 + (signal.SIGTERM if name == "SIGUSR1" else signal.Signals[name])


def say(text: str) -> None:
    """Writes a line to stderr, from a handler or a thread: needs no lock and no reader."""
    with suppress(OSError):
        os.write(2, f"\n{text}\n".encode())  # below a progress bar


def set_handlers(handler: Callable[[str], Any]) -> dict[int, Any]:
    """Sets the handler of all stop signals.

    A signal that the process ignores since its start stays ignored: ``nohup`` makes it ignore
    SIGHUP, and a script makes its background programs ignore SIGINT. Python allows handlers in
    the main thread only; in another thread this does nothing.

    Arguments
    ---------
    handler : callable
        Gets the name of the signal.

    Returns
    -------
    former : dict
        The handlers before, by signal.
    """
    former = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                former[number] = signal.signal(
                    number, lambda number, frame: handler(signal.Signals(number).name)
                )
    return former


def restore_handlers(former: dict[int, Any]) -> None:
    """Restores the handlers that ``set_handlers`` replaced."""
    for number, handler in former.items():
        # None: the handler is not Python's, and Python cannot set it again.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def stop_signals_end_the_program() -> Iterator[None]:
    """Makes a stop signal raise ``Stopped`` in the block. A second signal ends it at once."""
    received = []

    def end(name):
        if received:
            exit_at_once(exit_status(received[0]))
        received.append(name)
        raise Stopped(name, f"Stopped by {name}")

    former = set_handlers(end)
    try:
        yield
    except Stopped as stopped:  # raised above or after ``StopSignals``; the program ends now
        status = stopped.status
        set_handlers(lambda name: exit_at_once(status))
        raise
    except BaseException:
        restore_handlers(former)
        raise
    restore_handlers(former)


class StopSignals:
    """Remembers that a stop signal has come, so that the training can finish its step first.

    The training looks at ``received`` after each step, saves a checkpoint, and ends with
    ``exit_status``. A second SIGINT (Ctrl-C) ends the process at once.

    A terminal sends SIGINT for Ctrl-C, and SIGHUP when it is closed. Kubernetes and Slurm send
    SIGTERM before they kill. With ``--signal=USR1@120`` Slurm also sends SIGUSR1, 120 seconds
    before the time limit. torchrun starts each rank in a session of its own. It passes SIGINT,
    SIGTERM and SIGHUP on to all processes of that session and kills them 30 seconds later. A step
    and a checkpoint have to fit into this time. SIGUSR1 ends torchrun itself, unless its
    ``--signals-to-handle`` names the signal (torch 2.11). So use ``--signal=TERM@120`` with
    torchrun.

    Attributes
    ----------
    received : str or None
        Name of the first signal.

    Example
    -------
    >>> with StopSignals() as signals:
    ...     signal.raise_signal(signal.SIGUSR1)
    ...     signals.received
    'SIGUSR1'
    """

    def __init__(self):
        self.received: str | None = None
        self._former = {}
        self._interrupted = None  # time of the first SIGINT

    def __enter__(self) -> "StopSignals":
        self._former = set_handlers(self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        restore_handlers(self._former)

    def _note(self, name):
        if self.received is None:
            self.received = name
            wake_workers()  # the last step may need their batch
        if name != "SIGINT":
            return
        now = time.monotonic()
        if self._interrupted is None:
            self._interrupted = now
            say("SIGINT: stops after this step and a checkpoint; Ctrl-C once more ends it at once")
        elif "LOCAL_RANK" not in os.environ or now - self._interrupted > REPEATED_SECONDS:
            say("Stopped by SIGINT at once: the same command goes on from the last checkpoint")
            exit_at_once(exit_status(name))
