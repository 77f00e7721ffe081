"""A chart of curves: its numbers, which the script of the page draws, and a table of the last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from ..health import short
from .assets import template
from .thin import thin

COLOURS = 8  # --run-1 to --run-8 of page.css; then they come again
MOST_POINTS = 400  # of a curve, as many as a screen can show


class Curve(NamedTuple):
    """A line of a chart.

    Attributes
    ----------
    name : str
        What it is: "train". Curves of several runs that are the same share a name.
    x : sequence of float
        Where its points are, ascending: the steps of the run, if the chart follows the axis of
        the page.
    y : sequence of float or None
        Their values; None, NaN and infinite values are gaps.
    run : int
        The number of its run, from 0: its row in the legend, the mark at its end, and the switch
        that hides it.
    colour : int
        The number of its colour, from 0; -1 is grey, for what other curves are compared with.
    dash : str
        "" is a solid line; else the dashes of SVG, as "6 3". No two names of a chart should have
        the same colour and dashes.
    marks : bool
        Whether each point has a mark, for curves with few points.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    run: int = 0
    colour: int = 0
    dash: str = ""
    marks: bool = False

    @property
    def style(self) -> str:
        """The class of ``page.css`` that has its colour."""
        return "c0" if self.colour < 0 else f"c{1 + self.colour % COLOURS}"


class Chart(NamedTuple):
    """Curves over a common axis, with a legend that has their values.

    Attributes
    ----------
    title : str
        What is shown, with its unit: "Loss (nats)".
    curves : sequence of Curve
        The lines.
    runs : sequence of str
        Names of the rows of the legend, by ``Curve.run``; none if there is one row.
    x_label : str
        What x is.
    log, log_x : bool
        Whether an axis is logarithmic; it shows positive values only.
    percent : bool
        Whether y is a share, shown in per cent.
    follows : bool
        Whether x are steps, and the chart follows the page's switch to speech and time.
    note : str
        A line under the title.
    """

    title: str
    curves: Sequence[Curve]
    runs: Sequence[str] = ()
    x_label: str = "step"
    log: bool = False
    log_x: bool = False
    percent: bool = False
    follows: bool = False
    note: str = ""


def chart(chart: Chart, *, most_points: int = MOST_POINTS) -> Markup:
    """A chart in HTML, which the script of the page draws.

    Its legend is a table with a row for each run and a column for each kind of curve. It shows the
    last values of runs, the first ones of other curves, or those where the reader looks: with the
    mouse, or with a slider.

    Arguments
    ---------
    chart : Chart
        What to show.
    most_points : int
        A curve that has more is thinned; its lowest and highest points stay.

    Returns
    -------
    chart : Markup

    Example
    -------
    >>> html = chart(Chart("Loss", [Curve("<train>", [10, 20], [4.0, math.nan])]))
    >>> "<train>" in html, '"y": [4.0, null]' in html
    (False, True)
    """
    drawn = [_numbers(curve, chart, most_points) for curve in chart.curves]
    names = list(dict.fromkeys(curve.name for curve in chart.curves))
    rows = sorted({curve.run for curve in chart.curves})
    cells = {
        (curve.run, curve.name): (number, _shown(curve, chart))
        for number, curve in enumerate(chart.curves)
    }
    data = {
        "x": chart.x_label,
        "log": chart.log,
        "logX": chart.log_x,
        "percent": chart.percent,
        "follows": chart.follows,
        "curves": drawn,
    }
    return Markup(
        template("chart.html").render(
            chart=chart,
            data=data,
            names=names,
            rows=rows,
            cells=cells,
            colours=COLOURS,
            first={curve.name: curve for curve in reversed(chart.curves)},
        )
    )


def _numbers(curve, chart, most):
    """What the script needs of a curve. Steps are differences, which are shorter."""
    x, y = thin(curve.x, curve.y, most)
    if chart.follows:
        x = np.diff(np.round(x), prepend=0).astype(int).tolist()
    else:
        x = _rounded(x, digits=7)
    return {
        "name": curve.name,
        "run": curve.run,
        "style": curve.style,
        "dash": curve.dash,
        "marks": curve.marks,
        "x": x,
        "y": _rounded(y),
    }


def _rounded(values: np.ndarray, digits: int = 4) -> list[Any]:
    """In as many digits as a reader sees; None for NaN, which JSON has not."""
    return [None if math.isnan(v) else float(f"{v:.{digits}g}") for v in values.tolist()]


def _shown(curve, chart):
    """The value that the legend begins with: the last of a run, or the first of another curve."""
    values = [value for value in curve.y if value is not None and math.isfinite(value)]
    if not values:
        return "–"
    value = values[-1 if chart.follows else 0]
    return f"{short(100 * value)} %" if chart.percent else short(value)
