"""A row of results, and how its numbers are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

MINUTE, HOUR = 60, 3600
UNKNOWN = "-"


class Row(NamedTuple):
    """One number of each run.

    Attributes
    ----------
    group : str
        The heading above it.
    label : str
        What it is.
    cells : list of str
        A text for each run; ``UNKNOWN`` if there is none.
    best : set of int
        The runs that are better than the others, where that can be said.
    """

    group: str
    label: str
    cells: list[str]
    best: frozenset[int] = frozenset()


def best_of(values: Sequence[float | None], *, highest: bool = True) -> frozenset[int]:
    """Which values are the best ones; none if all are the same, or only one is known.

    Example
    -------
    >>> sorted(best_of([1.0, None, 2.0, 2.0])), sorted(best_of([1.0, None]))
    ([2, 3], [])
    """
    known = [value for value in values if value is not None]
    if len(known) < 2 or len(set(known)) == 1:
        return frozenset()
    best = max(known) if highest else min(known)
    return frozenset(number for number, value in enumerate(values) if value == best)


def duration(seconds: float) -> str:
    """A time in two units.

    Example
    -------
    >>> [duration(seconds) for seconds in (7.6, 126, 3599.9, 100_000)]
    ['8 s', '2 min 6 s', '1 h 0 min', '27 h 46 min']
    """
    whole = round(seconds)
    if whole >= HOUR:
        return f"{whole // HOUR:,} h {whole % HOUR // MINUTE} min"
    return f"{whole // MINUTE} min {whole % MINUTE} s" if whole >= MINUTE else f"{whole} s"


def file_size(size: float) -> str:
    """A size in a unit that suits it.

    Example
    -------
    >>> file_size(4_700), file_size(58_135_708), file_size(2.4e9)
    ('5 kB', '58 MB', '2.4 GB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.{int(size < 10 * factor)}f} {unit}"
    return f"{size / 1000:.0f} kB"


def percent(share: float) -> str:
    """A share in per cent.

    Example
    -------
    >>> percent(0.16149)
    '16.1 %'
    """
    return f"{100 * share:.1f} %"


def cells_of(values: Iterable[Any], write: Callable[[Any], str]) -> list[str]:
    """A text for each value; "-" for what is not known."""
    return [UNKNOWN if value is None else write(value) for value in values]
