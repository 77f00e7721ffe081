"""A table of a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from .assets import template


def table(
    headers: Sequence[Any],
    rows: Sequence[Sequence[Any]],
    *,
    caption: str,
    row_headers: bool = True,
) -> Markup:
    """A table in HTML. Cells are escaped, except those that are ``Markup`` already.

    Arguments
    ---------
    headers : sequence
        Names of the columns.
    rows : sequence of sequences
        The cells of each row. Numbers are set to the right; None is a dash.
    caption : str
        What the table is about; a screen reader reads it first.
    row_headers : bool
        Whether the first cell of a row names the row.

    Returns
    -------
    table : Markup

    Example
    -------
    >>> html = table(["run", "loss"], [["<b>", 4.5]], caption="Losses")
    >>> "<b>" in html, "&lt;b&gt;" in html
    (False, True)
    """
    return Markup(
        template("table.html").render(
            headers=headers, rows=rows, caption=caption, row_headers=row_headers
        )
    )
