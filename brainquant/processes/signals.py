"""Signals that ask a program to stop: it ends with one line, or after a step and a checkpoint."""

import os
import signal
import threading
import time
from contextlib import contextmanager, suppress

from .family import STOP_SIGNALS, exit_at_once, wake_workers

REPEATED_SECONDS = 1.0  # what a launcher passes on may come twice: to all processes, and from it


class Stopped(SystemExit):
    """A signal has ended the program; ``code`` is its exit status.

    Arguments
    ---------
    name : str
        Of the signal.
    line : str or None
        What is still to be shown; None where the program has said it.
    """

    def __init__(self, name, line=None):
        super().__init__(exit_status(name))
        self.line = line


def exit_status(name):
    """The status that a program ends with after a signal.

    128 and the signal's number, as a shell shows it. A scheduler that sends SIGUSR1 wants what
    SIGTERM does, and reads the same status.

    Example
    -------
    >>> exit_status("SIGINT"), exit_status("SIGTERM"), exit_status("SIGHUP")
    (130, 143, 129)
    >>> exit_status("SIGUSR1")
    143
    """
    return 128 + (signal.SIGTERM if name == "SIGUSR1" else signal.Signals[name])


def say(text):
    """Writes a line on stderr from a handler or a thread: takes no lock, needs no reader."""
    with suppress(OSError):
        os.write(2, f"\n{text}\n".encode())  # below a progress bar


def set_handlers(handler):
    """Sets what is called for each signal that asks for a stop.

    A signal that the process was started to ignore stays ignored: ``nohup`` ignores SIGHUP, and a
    script SIGINT for what it runs in the background. Python runs handlers in the main thread only;
    elsewhere nothing happens.

    Arguments
    ---------
    handler : callable
        Gets the name of the signal.

    Returns
    -------
    former : dict
        Handlers that were there before, by signal.
    """
    former = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                former[number] = signal.signal(
                    number, lambda number, frame: handler(signal.Signals(number).name)
                )
    return former


def restore_handlers(former):
    """Sets the handlers that ``set_handlers`` has replaced."""
    for number, handler in former.items():
        # None: set by something that is not Python, which alone can set it again.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def stop_signals_end_the_program():
    """A signal raises ``Stopped`` where the program is; a second one ends it at once."""
    received = []

    def end(name):
        if received:
            exit_at_once(exit_status(received[0]))
        received.append(name)
        raise Stopped(name, f"Stopped by {name}")

    former = set_handlers(end)
    try:
        yield
    except Stopped as stopped:  # also of ``StopSignals``; the program is about to end
        code = stopped.code
        set_handlers(lambda name: exit_at_once(code))
        raise
    except BaseException:
        restore_handlers(former)
        raise
    restore_handlers(former)


class StopSignals:
    """Notes that a signal has come, and does no more: the step is finished first.

    The training looks at ``received`` after each step, saves, and ends with the
    ``exit_status``. A second SIGINT, which is Ctrl-C, ends the process at once.

    A terminal sends SIGINT for Ctrl-C, and SIGHUP when it is closed. Kubernetes and Slurm send
    SIGTERM before they kill; with ``--signal=USR1@120`` Slurm also sends SIGUSR1 120 seconds before
    the end of the time limit. torchrun gives each rank a session of its own. It passes SIGINT,
    SIGTERM and SIGHUP on to all processes of that session and kills them 30 seconds later: that is
    the time for a step and a checkpoint. SIGUSR1 ends torchrun itself, unless its
    ``--signals-to-handle`` names it (torch 2.11): under torchrun ask for ``--signal=TERM@120``.

    Example
    -------
    >>> with StopSignals() as signals:
    ...     signal.raise_signal(signal.SIGUSR1)
    ...     signals.received
    'SIGUSR1'
    """

    def __init__(self):
        self.received = None  # name of the first signal
        self._former = {}
        self._interrupted = None  # when the first SIGINT came

    def __enter__(self):
        self._former = set_handlers(self._note)
        return self

    def __exit__(self, *exception):
        restore_handlers(self._former)

    def _note(self, name):
        if self.received is None:
            self.received = name
            wake_workers()  # the step that is finished first may need their batch
        if name != "SIGINT":
            return
        now = time.monotonic()
        if self._interrupted is None:
            self._interrupted = now
            say("SIGINT: stops after this step and a checkpoint; Ctrl-C once more ends it at once")
        elif "LOCAL_RANK" not in os.environ or now - self._interrupted > REPEATED_SECONDS:
            say("Stopped by SIGINT at once: the same command goes on from the last checkpoint")
            exit_at_once(exit_status(name))
