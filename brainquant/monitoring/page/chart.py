"""A chart of curves: its numbers for the script of the page, and a table of its last values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup


class Curve(NamedTuple):
    """A line of a chart.

    Attributes
    ----------
    name : str
        What it is, with its run: "best_rq, train".
    x : sequence of float
        Where its points are, ascending: the steps of the run, if the chart follows the axis of
        the page.
    y : sequence of float or None
        Their values; None and NaN are gaps.
    run : int
        The number of its run, from 0: decides on the colour, and which switch hides it.
    dash : str
        "" is a solid line; else SVG's dashes, as "6 3".
    marks : bool
        Whether each point has a dot.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    run: int = 0
    dash: str = ""
    marks: bool = False


class Chart(NamedTuple):
    """Curves over a common axis.

    Attributes
    ----------
    title : str
        What is shown, with its unit: "Loss (nats)".
    curves : sequence of Curve
        The lines; references have dashes.
    x_label : str
        What x is.
    log, log_x : bool
        Whether an axis is logarithmic; then it shows positive values only.
    percent : bool
        Whether y is a share, shown in per cent.
    follows : bool
        Whether x are steps, and the chart follows the switch between steps, speech and time.
    note : str
        A line under the title.
    """

    title: str
    curves: Sequence[Curve]
    x_label: str = "step"
    log: bool = False
    log_x: bool = False
    percent: bool = False
    follows: bool = False
    note: str = ""


def chart(chart: Chart) -> Markup:
    """A chart in HTML; the page's script draws it."""
    return Markup("<figure>{}</figure>").format(chart.title)
