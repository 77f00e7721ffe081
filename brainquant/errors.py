"""How a run ends that cannot go on: one line, and the right rank blamed."""

import json
import os
import re
import sys
import time
import traceback
from contextlib import contextmanager, suppress

from .processes.launcher import end_of_launcher, end_with_launcher, launcher_has_ended
from .processes.signals import Stopped, say, stop_signals_end_the_program
from .processes.streams import lasting_streams

# Of gloo, NCCL and the store in torch 2.11, where the process at the other end has ended.
PEER_HAS_ENDED = re.compile(
    r"gloo.*(closed by peer|reset by peer|broken pipe|socket closed|pair is not connected)"
    r"|ncclRemoteError|remote server shutdown|remote peer closed",
    re.IGNORECASE | re.DOTALL,
)


class RunError(ValueError):
    """A run cannot go on; the message says why, and one remedy."""


def rank_from_environment():
    """Number of this process and of all, known before there is a process group.

    Returns
    -------
    rank : int
    ranks : int

    Example
    -------
    >>> rank_from_environment()
    (0, 1)
    """
    if "LOCAL_RANK" not in os.environ:  # SpeechBrain's sign of several processes
        return 0, 1
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def one_line_errors(*kinds):
    """Ends the program with one line, and exit status 1, where the fault is no bug.

    One line where the error is of the given kinds, and where another rank of the run has ended: a
    collective then fails on all the others, and theirs is not the error to look at. Any other
    error is a bug and keeps its traceback. torchrun's summary at the end shows each of them.

    A signal that asks the program to stop ends it with one line and the signal's exit status. So
    does the death of its torchrun. Output whose reader has gone is no error.

    Arguments
    ---------
    *kinds : type
        Kinds of exceptions; without any, those of wrong input and of a missing extra: ValueError,
        FileNotFoundError and ImportError.

    Example
    -------
    >>> with one_line_errors():
    ...     raise ValueError("lr must be positive, got lr=-1; set lr:")
    Traceback (most recent call last):
    SystemExit: error: lr must be positive, got lr=-1; set lr:
    """
    try:
        with lasting_streams(), stop_signals_end_the_program(), end_with_launcher():
            yield
    except Stopped as stopped:
        if stopped.line is not None:
            why = f", after {end_of_launcher()}" if launcher_has_ended() else ""
            say(f"{stopped.line}{of_this_rank()}{why}")
        raise
    except Exception as error:
        if PEER_HAS_ENDED.search(str(error)):
            line = error_line("another rank of the run has ended: see its error, not this one")
            tell_torchrun(line, at_fault=False)
            sys.exit(line)
        if isinstance(error, kinds or (ValueError, FileNotFoundError, ImportError)):
            line = error_line(error)
            tell_torchrun(line, at_fault=True)
            sys.exit(line)
        tell_torchrun(traceback.format_exc(), at_fault=True)
        raise


def error_line(error):
    """The line that a run ends with; it names the rank where there are several.

    Example
    -------
    >>> error_line("no disk")
    'error: no disk'
    """
    return f"error{of_this_rank()}: {error}"


def of_this_rank():
    """What names this rank in a line; nothing where there is one only."""
    rank, ranks = rank_from_environment()
    return f" on rank {rank}" if ranks > 1 else ""


def tell_torchrun(text, *, at_fault):
    """Writes the file that torchrun's summary shows where this process of it has failed.

    Arguments
    ---------
    text : str
        What to show.
    at_fault : bool
        Whether this rank may be shown as the root cause.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None:
        return
    # torchrun takes the earliest for the root cause, in whole seconds, and of several in one
    # second the lowest rank. One that was killed has the time at which torchrun saw it. So a rank
    # that only waited gives a time that is later than all those.
    seconds = int(time.time()) + (0 if at_fault else 10)
    extra = {"py_callstack": text, "timestamp": str(seconds)}
    # A disk that is full must not hide the error.
    with suppress(OSError), open(path, "w", encoding="utf-8") as file:
        json.dump({"message": {"message": text, "extraInfo": extra}}, file)
