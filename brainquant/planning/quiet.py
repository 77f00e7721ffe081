"""Hides log lines that a plan says in its own words, or that would puzzle its reader."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def info_is_hidden() -> Iterator[None]:
    """Hides log lines below a warning, and torch's advice on workers: the plan says the same."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
            yield
    finally:
        logging.disable(before)


@contextmanager
def lines_are_hidden(text: str) -> Iterator[None]:
    """Hides log lines with a text, such as a temporary path, which would puzzle a reader."""
    handlers = list(logging.root.handlers)

    def has_not(record: logging.LogRecord) -> bool:
        return text not in record.getMessage()

    for handler in handlers:
        handler.addFilter(has_not)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(has_not)
