"""What the value of a key may be, and the one error for any other value."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Any

REQUIRED: Any = object()  # the default of a key that every YAML has to state


class InYaml(str):
    """A default that is written as YAML, since it is an object or refers to other keys."""


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of a recipe's YAML.

    Arguments
    ---------
    meaning : str
        What it sets, for errors.
    allowed : str
        What its value may be, as in "a whole number from 1 up".
    accepts : callable
        Whether a value is allowed.
    null : bool
        Whether null is allowed too.
    default : object
        The value if the YAML lacks the key; REQUIRED if the key has to be there.
    example : object
        A value that often works, for errors.
    kind : str
        "whole": the value becomes an int, since ``!ref <steps> / 10`` gives a float. "text", and
        "texts" for a list of them: the command line takes it as typed. "" for all others.
    """

    meaning: str
    allowed: str
    accepts: Callable[[Any], bool]
    null: bool = False
    default: Any = REQUIRED
    example: Any = None
    kind: str = ""

    def read(self, name: str, value: Any) -> Any:
        """The value, or a ValueError that names the key, the value, and what is allowed."""
        if value is None and self.null:
            return None
        if value is not None and self.accepts(value):
            return int(value) if self.kind == "whole" else value
        shown = "null" if value is None else repr(value)
        if value in ("yes", "no", "on", "off", "None", "nan"):
            shown += ", which is text in YAML (True, False and null are not)"
        null = ", or null" if self.null else ""
        example = self.default if self.example is None else self.example
        if example is REQUIRED or example is None or isinstance(example, InYaml):
            hint = ""
        else:
            hint = f", as in {name}: {example}"
        raise ValueError(
            f"{name} must be {self.allowed}{null}, got {shown}; it is {self.meaning}: set "
            f"{name}: in your YAML{hint}"
        )


def number(
    meaning: str,
    example: float | None = None,
    *,
    low: float = -math.inf,
    above: float | None = None,
    high: float = math.inf,
    below: float | None = None,
    finite: bool = True,
    **options: Any,
) -> Key:
    """A key whose value is a number in a range.

    Arguments
    ---------
    meaning : str
        What it sets.
    example : float
        A value that often works, for a key without a default.
    low, above : float
        The least value, or the limit that it has to be above.
    high, below : float
        The largest value, or the limit that it has to be below.
    finite : bool
        Whether infinity (``.inf`` in YAML) is refused.
    **options : object
        Those of ``Key``.

    Example
    -------
    >>> number("the share", above=0, high=1).allowed
    'a number above 0 and at most 1'
    >>> number("the rate", 0.1, above=0).read("lr", 0)
    Traceback (most recent call last):
    ValueError: lr must be a number above 0, got 0; it is the rate: set lr: in your YAML, as in ...
    """

    def accepts(value: Any) -> bool:
        return (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and (math.isfinite(value) or (not finite and math.isinf(value)))
            and low <= value <= high
            and (above is None or value > above)
            and (below is None or value < below)
        )

    allowed = _range_text("a number", low, above, high, below)
    return Key(meaning, allowed, accepts, example=example, **options)


def whole(
    meaning: str,
    example: int | None = None,
    *,
    low: float,
    high: float = math.inf,
    **options: Any,
) -> Key:
    """A key whose value is a whole number in a range. 100.0 is allowed, since divisions give it.

    Example
    -------
    >>> whole("the steps", low=1).allowed
    'a whole number from 1 up'
    >>> [whole("the steps", low=1).accepts(value) for value in (1, 1.0, 0, 1.5, True, "1")]
    [True, True, False, False, False, False]
    """
    in_range = number(meaning, low=low, high=high).accepts
    allowed = _range_text("a whole number", low, None, high, None)
    return Key(
        meaning,
        allowed,
        lambda value: in_range(value) and value == int(value),
        example=example,
        kind="whole",
        **options,
    )


def _range_text(
    kind: str, low: float, above: float | None, high: float, below: float | None
) -> str:
    lower = f" above {above}" if above is not None else f" from {low}" if low > -math.inf else ""
    up = " up" if above is None and lower else ""
    if below is not None:
        return f"{kind}{lower}{up} and below {below}"
    if high == math.inf:
        return f"{kind}{lower}{up}"
    return f"{kind}{lower} {'to' if above is None else 'and at most'} {high}"


def flag(meaning: str, **options: Any) -> Key:
    """A key whose value is True or False."""
    return Key(meaning, "True or False", lambda value: isinstance(value, bool), **options)


def choice(meaning: str, *values: Any, **options: Any) -> Key:
    """A key whose value is one of a few."""
    allowed = f"one of {', '.join(map(str, values))}"
    # The type counts too, since 1 == True.
    kinds = {(type(value), value) for value in values}
    return Key(meaning, allowed, lambda value: (type(value), value) in kinds, **options)


def text(meaning: str, **options: Any) -> Key:
    """A key whose value is a path or another text that is not empty."""
    return Key(meaning, "text (in quotes if YAML would read it as something else)", _is_text,
               kind="text", **options)  # fmt: skip


def texts(meaning: str, **options: Any) -> Key:
    """A key whose value is a text or a list of texts."""

    def accepts(value: Any) -> bool:
        several = isinstance(value, (list, tuple)) and len(value) > 0
        return _is_text(value) or (several and all(map(_is_text, value)))

    return Key(meaning, "text or a list of texts", accepts, kind="texts", **options)


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike)) and str(value) != ""


def called(meaning: str, **options: Any) -> Key:
    """A key whose value is a class or a function, ``!name:`` in YAML."""
    return Key(meaning, "a class or a function (!name:...)", callable, **options)


def several(meaning: str, **options: Any) -> Key:
    """A key whose value is a list of objects."""
    return Key(meaning, "a list", lambda value: isinstance(value, (list, tuple)), **options)


def anything(meaning: str, **options: Any) -> Key:
    """A key whose value is an object, which is checked where it is used."""
    return Key(meaning, "an object", lambda value: True, **options)
