"""Ends a run that cannot go on: with one line, and with the right rank blamed."""

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .processes.launcher import end_of_launcher, end_with_launcher, launcher_has_ended
from .processes.signals import Stopped, say, stop_signals_end_the_program
from .processes.streams import lasting_streams

# Messages of gloo, NCCL and the store in torch 2.11 when the process at the other end has ended.
PEER_HAS_ENDED = re.compile(
    r"gloo.*(closed by peer|reset by peer|broken pipe|socket closed|pair is not connected)"
    r"|ncclRemoteError|remote server shutdown|remote peer closed",
    re.IGNORECASE | re.DOTALL,
)


class RunError(ValueError):
    """A run cannot go on; the message gives the reason and one remedy."""


def rank_from_environment() -> tuple[int, int]:
    """The rank of this process and the number of ranks, known before there is a process group.

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
def one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Ends the program with one line and exit status 1, unless the error is a bug.

    An error is no bug if it is of the given kinds. Nor is it a bug if another rank of the run has
    ended: a collective then fails on all other ranks, and their errors are not the cause. Any
    other error is a bug and keeps its traceback. torchrun's summary shows each error.

    A signal that asks the program to stop ends it with one line and the exit status of the signal.
    If torchrun ends, its ranks stop in the same way. Output that nobody reads any more is no error.

    Arguments
    ---------
    *kinds : type
        Kinds of exceptions. By default those of wrong input and of a missing extra: ValueError,
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


def error_line(error: Exception | str) -> str:
    """The last line of a run that fails. It names the rank if there are several.

    Example
    -------
    >>> error_line("no disk")
    'error: no disk'
    """
    return f"error{of_this_rank()}: {error}"


def of_this_rank() -> str:
    """Names this rank, for a message; empty if there is only one rank."""
    rank, ranks = rank_from_environment()
    return f" on rank {rank}" if ranks > 1 else ""


def tell_torchrun(text: str, *, at_fault: bool) -> None:
    """Writes the error file of this rank, which torchrun shows in its summary.

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
    # torchrun takes the rank with the earliest time, in whole seconds, for the root cause; among
    # several, the lowest rank. A killed rank has the time when torchrun noticed it. So a rank
    # that only waited for others writes a later time than all of them.
    seconds = int(time.time()) + (0 if at_fault else 10)
    extra = {"py_callstack": text, "timestamp": str(seconds)}
    # A full disk must not hide the error.
    with suppress(OSError), open(path, "w", encoding="utf-8") as file:
        json.dump({"message": {"message": text, "extraInfo": extra}}, file)
