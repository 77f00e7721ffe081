"""A plan as text and as JSON: sections, findings, and numbers as people say them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from ..errors import RunError
from .section import Finding, Section

WIDTH = 80


def format_section(section: Section) -> str:
    """A heading and its lines, at most 80 columns wide.

    Arguments
    ---------
    section : Section
        Its lines may be too long; they are wrapped.

    Example
    -------
    >>> print(format_section(Section("Time", {}, ["2 steps a second", ""])))
    Time
      2 steps a second
    <BLANKLINE>
    """
    lines = [_wrap(line, "  ", "    ") for line in section.lines]
    return "\n".join([section.title, *lines])


def format_findings(findings: Sequence[Finding], unknown: Sequence[str] = ()) -> str:
    """All findings as numbered lines, each with the key to change.

    Arguments
    ---------
    findings : sequence of Finding
        The findings.
    unknown : sequence of str
        Titles of the parts that could not be measured.

    Example
    -------
    >>> print(format_findings([Finding("few_passes", "1.2 passes", "set number_of_epochs: 2")]))
    1 finding:
      1. 1.2 passes
         -> set number_of_epochs: 2
    >>> print(format_findings([], unknown=["Memory"]))
    Nothing was found that would go wrong.
    Not measured: Memory
    """
    lines = [f"{len(findings)} finding{'s' * (len(findings) > 1)}:"]
    if not findings:
        lines = ["Nothing was found that would go wrong."]
    for number, finding in enumerate(findings, start=1):
        mark = f"{number:3}. "
        lines.append(_wrap(finding.text, mark, " " * len(mark)))
        lines.append(_wrap(finding.remedy, "     -> ", "        "))
    if unknown:
        lines.append(_wrap(f"Not measured: {', '.join(unknown)}", "", "  "))
    return "\n".join(lines)


def _wrap(text: str, first: str, others: str) -> str:
    """Wraps a line; a word that is too long, such as a path, stays whole."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )


def say_bytes(number: float) -> str:
    """A size with three digits.

    Example
    -------
    >>> [say_bytes(number) for number in (812, 28_416_000, 999_600_000, 1.2e12)]
    ['812 B', '28.4 MB', '1 GB', '1.2 TB']
    """
    units = ["B", "kB", "MB", "GB"]
    for unit in units:
        if number < 999.5:
            return f"{float(f'{number:.3g}'):g} {unit}"
        number /= 1000
    return f"{float(f'{number:.3g}'):g} TB"


def failed(title: str, error: Exception) -> Section:
    """The part of a plan that could not be made; what would end a training is a finding.

    Example
    -------
    >>> section = failed("Memory", RunError("train_csv: its clips are silent; check the files"))
    >>> section.lines, section.findings[0].remedy
    (['not known: train_csv: its clips are silent; check the files'], 'check the files')
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, (ValueError, TimeoutError)):
        text = f"{type(error).__name__}: {text}"
    findings = []
    if isinstance(error, RunError):
        reason, _, remedy = text.rpartition("; ")
        findings = [Finding("training_fails", reason or text, remedy if reason else "mend that")]
    return Section(title, {"error": text}, [f"not known: {text}"], findings)


def as_json(value: Any) -> Any:
    """A value of JSON, which has neither NaN nor infinities: they become null.

    Example
    -------
    >>> as_json({"a": [1, float("nan")], 2: (True, None)})
    {'a': [1, None], '2': [True, None]}
    """
    if isinstance(value, dict):
        return {str(key): as_json(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(child) for child in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
