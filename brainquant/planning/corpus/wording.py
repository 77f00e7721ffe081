"""Numbers and lines for a reader."""

import math
import re
import textwrap

WIDTH = 76  # characters of a line
LABEL = 12  # those of its label
UNITS = "s\\b|min\\b|h\\b|%|dB|kHz"
NO_BREAK = "\N{NO-BREAK SPACE}"


def labelled(label: str, text: str) -> list[str]:
    """The lines of a label and its text. No line ends between a number and its unit.

    Example
    -------
    >>> for line in labelled("lengths", "shortest 1.4 s, median 14 s, " * 3):
    ...     print(line)
    lengths     shortest 1.4 s, median 14 s, shortest 1.4 s, median 14 s,
                shortest 1.4 s, median 14 s,
    """
    together = re.sub(rf"(?<=\d) (?=({UNITS}))", NO_BREAK, f"{label:{LABEL}}{text}")
    lines = textwrap.wrap(together, WIDTH, subsequent_indent=" " * LABEL, break_on_hyphens=False)
    return [line.replace(NO_BREAK, " ") for line in lines]


def say_time(seconds: float) -> str:
    """A time in the unit that a reader would choose.

    Example
    -------
    >>> say_time(0.2), say_time(14.04), say_time(630), say_time(86400)
    ('0.2 s', '14 s', '10.5 min', '24 h')
    """
    if seconds < 99.95:
        return f"{seconds:.3g} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min".replace(".0 ", " ")
    return f"{seconds / 3600:,.1f} h".replace(".0 ", " ")


def say_percent(share: float) -> str:
    """A share in percent; only a share of exactly 0 is 0 %, and only all is 100 %.

    Example
    -------
    >>> [say_percent(share) for share in (0, 0.00001, 0.0213, 0.9999, 1)]
    ['0 %', 'under 0.1 %', '2.1 %', 'over 99.9 %', '100 %']
    """
    if math.isclose(share, 1):
        return "100 %"
    if 0 < share < 0.001:
        return "under 0.1 %"
    if 0.999 < share < 1:
        return "over 99.9 %"
    return f"{100 * share:.{0 if share == 0 or 0.1 <= share < 0.99 else 1}f} %"


def say_count(number: int, noun: str) -> str:
    """A number and its noun, in the plural if it is not one.

    Example
    -------
    >>> say_count(1, "clip"), say_count(28539, "clip"), say_count(2, "batch")
    ('1 clip', '28,539 clips', '2 batches')
    """
    plural = "es" if noun.endswith("ch") else "s"
    return f"{number:,} {noun}{plural * (number != 1)}"
