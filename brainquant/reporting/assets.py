"""The templates, style and script of what is shown of codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..monitoring.page import assets

FOLDER = Path(__file__).parent / "templates"


def fill(name: str, **values: Any) -> Markup:
    """A template with values in it, which are escaped unless they are ``Markup``."""
    return Markup(assets.template(name, FOLDER).render(**values))


def text_of(name: str) -> str:
    """A style or script."""
    return assets.text_of(name, FOLDER)
