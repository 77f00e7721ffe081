"""transformers, an extra: imported where a model of it is used."""

from __future__ import annotations

import os
from types import ModuleType

from ..functional.imports import import_late

LOWEST = 5  # its first major version whose models are held here


def import_transformers() -> ModuleType:
    """Imports transformers without its notes about other frameworks.

    Raises
    ------
    ImportError
        If it is not installed, or too old; the error says what to install.

    Example
    -------
    >>> import_transformers().Wav2Vec2Config().hidden_size
    768
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        library = import_late("transformers")
    except ImportError as error:
        raise ImportError(
            f'models of transformers need it ({error}): pip install "brainquant[hf]"'
        ) from error
    if int(library.__version__.split(".")[0]) < LOWEST:
        raise ImportError(
            f"models of transformers need version {LOWEST} or newer, and {library.__version__} is "
            f'installed: pip install --upgrade "brainquant[hf]"'
        )
    return library
