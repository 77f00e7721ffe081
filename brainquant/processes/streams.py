"""Output streams that never end a run, even if nobody reads them any more."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

GONE = (errno.EPIPE, errno.EIO)  # the reader of a pipe has ended, the terminal is closed


class LastingStream:
    """A text stream that writes what it can and never raises an OSError.

    Ctrl-C reaches both processes of ``python train.py 2>&1 | tee log``. tee ends at once, but the
    run first finishes its step and saves. A progress bar must not end it earlier. The same happens
    if a terminal is closed.

    Arguments
    ---------
    stream : io.TextIOBase
        The stream that writes. Other attributes are taken from it.

    Example
    -------
    >>> reader, writer = os.pipe()
    >>> stream = LastingStream(open(writer, "w", encoding="utf-8"))
    >>> os.close(reader)
    >>> print("lost", file=stream, flush=True)
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text and returns its length."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered."""
        self._attempt(self._stream.flush)

    def _attempt(self, function, *arguments):
        try:
            function(*arguments)
        except OSError as error:
            if error.errno in GONE:  # the buffered text would fail again when the program ends
                with suppress(OSError):
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, self._stream.fileno())
                    os.close(nowhere)


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Makes stdout and stderr lasting streams until the end of the block."""
    former = sys.stdout, sys.stderr
    # A stream is None if the process was started without it.
    lasting: Any = [stream and LastingStream(stream) for stream in former]
    sys.stdout, sys.stderr = lasting
    try:
        yield
    finally:
        for stream in filter(None, lasting):
            stream.flush()
        sys.stdout, sys.stderr = former
