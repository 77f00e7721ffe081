"""What every form of manifest becomes: rows of one kind, with times in samples or seconds."""

import dataclasses
from decimal import Decimal, InvalidOperation


@dataclasses.dataclass(slots=True)
class Row:
    """A clip as a manifest has it.

    Arguments
    ---------
    place : str
        Where in the manifest, for people.
    wav : str
        The path as it is written there.
    id : str
        Or "": one is made of the path.
    start, stop : int, Decimal or None
        Where in its file the clip begins and ends: an int counts samples at the file's own rate, a
        Decimal seconds. Both None: the whole file. Only ``stop`` None: to the end of the file. Only
        ``start`` None: the file is said to last until ``stop``.
    channel : int or None
        From 0; None: all of them.
    speaker : str
        Or "".
    more : dict
        Text by further columns, the same for all rows.
    fault : str or None
        What is wrong with the row.
    """

    place: str
    wav: str
    id: str = ""
    start: int | Decimal | None = None
    stop: int | Decimal | None = None
    channel: int | None = None
    speaker: str = ""
    more: dict = dataclasses.field(default_factory=dict)
    fault: str | None = None


@dataclasses.dataclass
class Found:
    """What a form has read.

    Arguments
    ---------
    rows : list of Row
    folder : str
        What paths are relative to.
    files : list of str
        What was read: when one of them changes, manifests are made anew.
    remark : str
        What a user should know about how it was read, or "".
    """

    rows: list
    folder: str
    files: list
    remark: str = ""


def seconds_of(column, text):
    """A time, exactly as it is written.

    Arguments
    ---------
    column : str
        Which it is from, for the error.
    text : str

    Returns
    -------
    Decimal

    Raises
    ------
    ValueError
        Where it is no number of seconds from 0 up.

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


def part_of(first, last, start, end, *, is_length=False):
    """Start and stop in seconds, of two cells.

    Arguments
    ---------
    first, last : str
        The columns.
    start, end : str
        Their cells.
    is_length : bool
        Whether the second counts from the first.

    Returns
    -------
    start, stop : Decimal or None

    Raises
    ------
    ValueError
        With the reason, where they are no part of a file.

    Example
    -------
    >>> part_of("offset", "duration", "0.5", "2", is_length=True)
    (Decimal('0.5'), Decimal('2.5'))
    """
    start, end = start.strip(), end.strip()
    if start and not end or end and not start and not is_length:
        raise ValueError(f"the columns {first} and {last} must be both filled or both empty")
    start = seconds_of(first, start) if start else None
    if not end:
        return None, None
    stop = seconds_of(last, end)
    if is_length and stop <= 0:
        raise ValueError(f"the column {last} has {end!r}, not a positive number of seconds")
    if start is None:
        return None, stop
    stop += start if is_length else 0
    if start >= stop:
        raise ValueError(f"the column {last} has {end!r}, which is not after the {first}, {start}")
    return start, stop
