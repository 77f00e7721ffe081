"""Output that is no reason to end a run: its reader may leave before it does."""

import errno
import os
import sys
from contextlib import contextmanager, suppress

GONE = (errno.EPIPE, errno.EIO)  # the reader of a pipe, the terminal


class LastingStream:
    """A text stream that writes what it can, and never raises an OSError.

    Ctrl-C reaches both processes of ``python train.py 2>&1 | tee log``. tee ends at once, the run
    after its step and a checkpoint: a progress bar in between must not end it earlier. The same
    holds where a terminal is closed.

    Arguments
    ---------
    stream : io.TextIOBase
        Has all other attributes.

    Example
    -------
    >>> reader, writer = os.pipe()
    >>> stream = LastingStream(open(writer, "w", encoding="utf-8"))
    >>> os.close(reader)
    >>> print("lost", file=stream, flush=True)
    """

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        """Writes a text; gives its length."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self):
        """Writes what is buffered."""
        self._attempt(self._stream.flush)

    def _attempt(self, function, *arguments):
        try:
            function(*arguments)
        except OSError as error:
            if error.errno in GONE:  # what is buffered would fail again, at the latest at the end
                with suppress(OSError):
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, self._stream.fileno())
                    os.close(nowhere)


@contextmanager
def lasting_streams():
    """Makes stdout and stderr such streams until the end of the block."""
    former = sys.stdout, sys.stderr
    # None: of a process that was started without.
    lasting = [stream and LastingStream(stream) for stream in former]
    sys.stdout, sys.stderr = lasting
    try:
        yield
    finally:
        for stream in filter(None, lasting):
            stream.flush()
        sys.stdout, sys.stderr = former
