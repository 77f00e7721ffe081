"""Imports that need care: slow libraries, libraries that draw random numbers, torchaudio."""

import importlib
import importlib.metadata
import random
from types import ModuleType

import torch


def check_torchaudio() -> None:
    """Explains in one line if torchaudio cannot be loaded beside the installed torch.

    SpeechBrain imports torchaudio, and each torchaudio works with some releases of torch only. pip
    may install a pair that does not work; torch's error then names only a missing C symbol.

    Raises
    ------
    ImportError
        With both versions, and what to install.

    Example
    -------
    >>> check_torchaudio()
    """
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError) as error:
        torchaudio = importlib.metadata.version("torchaudio")
        raise ImportError(
            f"torch {torch.__version__} and torchaudio {torchaudio} do not work together "
            f"({str(error).splitlines()[0]}); install both from one index: "
            'pip install "torch>=2.11,<2.15" "torchaudio==2.11.0"; more: docs/how_to/versions.md'
        ) from error


def import_late(name: str) -> ModuleType:
    """Imports a module without changing the state of Python's random numbers.

    scikit-learn (1.9) imports ``rich`` if it is installed, and ``rich`` (15) draws from ``random``
    when it is imported. That would change all later draws of the program.

    Arguments
    ---------
    name : str
        The module, as in ``sklearn.cluster``.

    Returns
    -------
    module : module

    Example
    -------
    >>> before = random.getstate()
    >>> import_late("sklearn.cluster").KMeans(3).n_clusters
    3
    >>> random.getstate() == before
    True
    """
    before = random.getstate()
    try:
        return importlib.import_module(name)
    finally:
        random.setstate(before)
