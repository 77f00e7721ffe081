"""Imports that are left until they are needed, because they are slow or draw random numbers."""

import importlib
import random


def import_late(name):
    """Imports a module, and leaves Python's random numbers as they were.

    scikit-learn (1.9) imports ``rich`` where that is installed, and ``rich`` (15) draws from
    ``random`` when it is imported: all that a program draws afterwards would be different.

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
