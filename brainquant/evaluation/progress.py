"""The progress bars of a probe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress_bar(hidden: bool, steps: Iterable[Item], text: str, unit: str) -> Iterable[Item]:
    """Iterates over steps; on a terminal it shows a bar, unless this is hidden.

    Example
    -------
    >>> list(progress_bar(True, range(2), "layers", " layer"))
    [0, 1]
    """
    # With disable=None, tqdm shows a bar on a terminal only.
    return tqdm(steps, text, unit=unit, leave=False, dynamic_ncols=True, disable=hidden or None)
