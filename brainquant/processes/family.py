"""What a process of a run knows of its parent and of its children; imports nothing heavy."""

import ctypes
import multiprocessing
import os
import signal
import sys
from contextlib import contextmanager, suppress

# SIGHUP: a terminal was closed. SIGUSR1: Slurm's warning before a time limit.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


@contextmanager
def stop_signals_wait():
    """Holds back signals that ask for a stop until the block ends; its children start with that."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def ask_for_signal_when_parent_ends(number):
    """Has the kernel send this process a signal when its parent ends, however that happens.

    Linux only; elsewhere nothing happens.

    Arguments
    ---------
    number : signal.Signals
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number))


def wake_workers():
    """Continues daemonic children that were stopped (SIGSTOP): a wait for them would never end."""
    for worker in multiprocessing.active_children():
        if worker.daemon:
            os.kill(worker.pid, signal.SIGCONT)


def end_workers():
    """Kills the daemonic children that multiprocessing has started, the stopped ones too.

    Called when the program ends: a stopped worker does not obey the SIGTERM that multiprocessing
    sends, and the program would wait for it for ever.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises an error for each
    for worker in multiprocessing.active_children():
        if worker.daemon:
            worker.kill()


def exit_at_once(status):
    """Ends the process without any more of its code, and its children; from the main thread."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(status)


def is_running(pid):
    """Whether there is a process of this number on this machine, zombies not counted.

    Example
    -------
    >>> is_running(os.getpid())
    True
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of another user
        return True
    with suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return True
