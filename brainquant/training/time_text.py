"""Lengths of time and moments, as a person says them."""

from datetime import datetime, timedelta


def duration_text(seconds: float) -> str:
    """A length of time in its two largest units.

    Example
    -------
    >>> [duration_text(s) for s in (0.2, 59.6, 11_399, 3 * 86_400 + 14_400, 400 * 86_400)]
    ['1 s', '1 min', '3 h 10 min', '3 d 4 h', '400 d']
    """
    if (whole := max(round(seconds), 1)) < 60:
        return f"{whole} s"
    if (minutes := round(seconds / 60)) < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days:,} d {hours} h" if hours and days < 100 else f"{days:,} d"


def moment_text(seconds: float, now: datetime | None = None) -> str:
    """When so many seconds will have passed, on the clock of this machine.

    Example
    -------
    >>> now = datetime(2026, 5, 30, 22, 50)
    >>> [moment_text(hours * 3600, now) for hours in (1, 3, 100, 400)]
    ['at 23:50', 'at 01:50 on Sunday', 'at 02:50 on Thursday', 'on 16 June']
    """
    now = now or datetime.now()
    try:
        then = now + timedelta(seconds=seconds)
    except OverflowError:
        return "never"
    days = (then.date() - now.date()).days
    if days < 7:
        return f"at {then:%H:%M}" + (f" on {then:%A}" if days else "")
    year = f" {then.year}" if then.year != now.year else ""
    return f"on {then.day} {then:%B}{year}"
