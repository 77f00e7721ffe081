"""The curves of one or several runs, from the points of their logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from .render import PageSection


class LoggedRun(NamedTuple):
    """A run as its log shows it.

    Attributes
    ----------
    name : str
        What the page calls it.
    points : sequence of dict
        Its log points, as ``monitoring.report.read_points`` gives them.
    verdict : tuple of (str, str)
        The text and the state ("good", "bad" or "unknown") of ``monitoring.health.verdict``.
    """

    name: str
    points: Sequence[Mapping[str, Any]]
    verdict: tuple[str, str] = ("", "unknown")


def curve_sections(runs: Sequence[LoggedRun]) -> list[PageSection]:
    """The curves of runs, those of all runs in the same charts.

    Arguments
    ---------
    runs : sequence of LoggedRun
        The runs; their order decides on their colours.

    Returns
    -------
    sections : list of PageSection
    """
    names = Markup("<br>").join(run.name for run in runs)
    return [PageSection("curves", "Curves", Markup("<p>{}</p>").format(names))]
