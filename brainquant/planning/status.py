"""Says on a terminal what a command is doing, and for how long."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

SECONDS = 1.0  # from one renewal to the next


@contextmanager
def status(text: str, stream: TextIO | None = None) -> Iterator[None]:
    """Shows a line that is renewed each second, and removed at the end.

    Arguments
    ---------
    text : str
        What is being done.
    stream : TextIO or None
        Where to; None is standard error. Nothing is shown if it is no terminal.

    Example
    -------
    >>> with status("measuring"):
    ...     pass
    """
    terminal = sys.stderr if stream is None else stream
    if not terminal.isatty():
        yield
        return
    done, began = threading.Event(), time.monotonic()

    def renew() -> None:
        while True:
            terminal.write(f"\r\x1b[K{text} ... {time.monotonic() - began:.0f} s")
            terminal.flush()
            if done.wait(SECONDS):
                break

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        terminal.write("\r\x1b[K")
        terminal.flush()
