"""The templates, style and scripts of the pages, and how they are read."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path

import jinja2

FOLDER = Path(__file__).parent / "templates"


@functools.cache
def _environment(folder):
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["hash"] = content_hash
    return environment


def template(name: str, folder: Path = FOLDER) -> jinja2.Template:
    """A template of a folder. What it shows is escaped, unless it is ``Markup``."""
    return _environment(folder).get_template(name)


def text_of(name: str, folder: Path = FOLDER) -> str:
    """A style or script of a folder."""
    return (folder / name).read_text("utf-8")


def content_hash(text: str) -> str:
    """What a Content-Security-Policy calls a style or a script.

    Example
    -------
    >>> content_hash("")
    'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='
    """
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
