"""The parent and the children of a process of a run. Imports nothing heavy."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# SIGHUP: the terminal was closed. SIGUSR1: Slurm warns before its time limit.
STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)  # Windows has only the first two
)
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


@contextmanager
def stop_signals_wait() -> Iterator[None]:
    """Delays stop signals until the block ends. Children that start in it delay them, too."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def ask_for_signal_when_parent_ends(number: signal.Signals) -> None:
    """Makes the kernel send this process a signal when its parent ends for any reason.

    Linux only; does nothing on other systems.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number))


def wake_workers() -> None:
    """Continues daemonic children that a SIGSTOP has stopped, so that nobody waits for ever."""
    for worker in multiprocessing.active_children():
        if worker.daemon and worker.pid:
            os.kill(worker.pid, signal.SIGCONT)


def end_workers() -> None:
    """Kills the daemonic children of multiprocessing, when the program ends.

    multiprocessing itself sends SIGTERM, which does not end a stopped child. The program would
    wait for it for ever.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises an error for each
    for worker in multiprocessing.active_children():
        if worker.daemon:
            worker.kill()


def exit_at_once(status: int) -> None:
    """Ends the process and its children, without cleaning up. Call it from the main thread."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(status)


def is_running(pid: int) -> bool:
    """Whether a process of this number runs on this machine. A zombie does not run.

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
