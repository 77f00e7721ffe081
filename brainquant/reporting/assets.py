"""The templates, style and script of what is shown of codes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

FOLDER = Path(__file__).parent / "templates"


@functools.cache
def _environment():
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def fill(name: str, **values: Any) -> Markup:
    """A template with values in it, which are escaped unless they are ``Markup``."""
    return Markup(_environment().get_template(name).render(**values))


def text_of(name: str) -> str:
    """A style or script."""
    return (FOLDER / name).read_text("utf-8")
