"""The result of reading a manifest of any form, and the times in its cells."""

import dataclasses
from decimal import Decimal, InvalidOperation

from ..clips import Clip


@dataclasses.dataclass
class Found:
    """The clips of a manifest."""

    clips: list[Clip]  # as the rows describe them, some with a fault
    folder: str  # paths are relative to it
    files: list[str]  # that were read: when one of them changes, manifests are made again
    remark: str = ""  # how it was read, for the user


def seconds_of(column: str, text: str) -> Decimal:
    """The time in a cell, exactly as it is written; a ValueError names the column.

    Example
    -------
    >>> seconds_of("start_time", "1.10")
    Decimal('1.10')
    """
    try:
        seconds = Decimal(text.strip())
    except InvalidOperation:
        seconds = Decimal("NaN")
    if not seconds.is_finite() or not 0 <= seconds < 10**9:
        raise ValueError(f"the column {column} has {text!r}, not a number of seconds from 0 up")
    return seconds


def part_of(
    first: str, last: str, start_text: str, end_text: str, *, is_length: bool = False
) -> tuple[Decimal | None, Decimal | None]:
    """Start and stop in seconds from the cells of two columns, ``first`` and ``last``.

    ``is_length``: whether the second is the length of the clip. A ValueError gives the reason if
    the cells are not a part of a file.

    Example
    -------
    >>> part_of("offset", "duration", "0.5", "2", is_length=True)
    (Decimal('0.5'), Decimal('2.5'))
    """
    start_text, end_text = start_text.strip(), end_text.strip()
    if start_text and not end_text or end_text and not start_text and not is_length:
        raise ValueError(f"the columns {first} and {last} must be both filled or both empty")
    start = seconds_of(first, start_text) if start_text else None
    if not end_text:
        return None, None
    stop = seconds_of(last, end_text)
    if is_length and stop <= 0:
        raise ValueError(f"the column {last} has {end_text!r}, not a positive number of seconds")
    if start is None:
        return None, stop
    stop += start if is_length else 0
    if start >= stop:
        raise ValueError(
            f"the column {last} has {end_text!r}, which is not after the {first}, {start}"
        )
    return start, stop
