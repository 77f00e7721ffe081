"""One HTML file from the sections of a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from .assets import template, text_of


class PageSection(NamedTuple):
    """A part of a page.

    Attributes
    ----------
    anchor : str
        Its ID, which links name: small letters and hyphens.
    title : str
        Its heading.
    body : Markup
        What it shows. Attributes such as ``style`` and ``onclick`` have no effect: the policy of
        the page allows only the styles and scripts that are named below.
    script : str
        JavaScript that runs once the page is there, in a script element of its own; of several
        sections with the same one, only the first.
    style : str
        CSS. For colours there are the variables of ``templates/page.css``.
    """

    anchor: str
    title: str
    body: Markup
    script: str = ""
    style: str = ""


def render_page(
    title: str,
    sections: Sequence[PageSection],
    *,
    subtitle: str = "",
    refresh_seconds: int | None = None,
) -> str:
    """A page as the text of one HTML file, which loads nothing and runs no script but its own.

    Arguments
    ---------
    title : str
        Its heading and the name of its window.
    sections : sequence of PageSection
        Its parts, in their order.
    subtitle : str
        A line under the title.
    refresh_seconds : int or None
        How often a browser reads the file anew; None: never.

    Returns
    -------
    page : str

    Example
    -------
    >>> page = render_page("a < b", [PageSection("one", "One", Markup("<p>1</p>"))])
    >>> "<title>a &lt; b</title>" in page and "<p>1</p>" in page
    True
    """
    scripts = dict.fromkeys([text_of("charts.js"), *(s.script for s in sections if s.script)])
    styles = dict.fromkeys([text_of("page.css"), *(s.style for s in sections if s.style)])
    return template("page.html").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        refresh_seconds=refresh_seconds,
        scripts=[Markup(script) for script in scripts],
        style=Markup("\n".join(styles)),
    )
