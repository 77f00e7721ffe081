"""Libraries that only one format needs."""

from __future__ import annotations

from types import ModuleType

from ...functional.imports import import_late


def _import_extra(module: str, extra: str) -> ModuleType:
    try:
        return import_late(module)
    except ImportError as error:
        raise ValueError(
            f"--format {extra} needs {module.partition('.')[0]}, which cannot be imported "
            f'({error}); pip install "brainquant[{extra}]", or pip install -e ".[{extra}]" in a '
            f"clone of the repository"
        ) from error


def import_kaldiio() -> ModuleType:
    """kaldiio; a ValueError that names the extra if it is not there."""
    return _import_extra("kaldiio", "kaldi")


def import_pyarrow() -> ModuleType:
    """pyarrow with ``pyarrow.parquet``; a ValueError that names the extra if it is not there."""
    _import_extra("pyarrow.parquet", "parquet")
    return import_late("pyarrow")
