"""What each part of a plan gives: facts for a program, lines for a reader, and findings."""

from __future__ import annotations

from typing import Any, NamedTuple


class Finding(NamedTuple):
    """Something that will go wrong, or that is wasted.

    Attributes
    ----------
    name : str
        The kind of finding, the same in every run: ``few_passes``.
    text : str
        What it is, with its numbers.
    remedy : str
        The key to change, and to what: ``set max_seconds: 20``.
    """

    name: str
    text: str
    remedy: str


class Section(NamedTuple):
    """A part of a plan.

    Attributes
    ----------
    title : str
        Its heading.
    facts : dict
        Everything that was found, as values of JSON: numbers in seconds, bytes and shares.
    lines : list of str
        The same for a reader, each at most 76 characters long.
    findings : list of Finding
        The worst first.
    """

    title: str
    facts: dict[str, Any]
    lines: list[str]
    findings: list[Finding] = []
