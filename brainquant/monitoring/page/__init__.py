"""HTML pages about runs: one file each that opens from disk, with no network and no server."""

from .chart import Chart, Curve, chart
from .curves import LoggedRun, curve_sections
from .render import PageSection, render_page
from .table import table

__all__ = [
    "Chart",
    "Curve",
    "LoggedRun",
    "PageSection",
    "chart",
    "curve_sections",
    "render_page",
    "table",
]
