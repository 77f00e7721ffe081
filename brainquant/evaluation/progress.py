"""The progress bars of a probe."""

from tqdm import tqdm


def progress_bar(brain, steps, text, unit):
    """Iterates over steps, with a bar on a terminal unless ``--noprogressbar`` is set.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> list(progress_bar(SimpleNamespace(noprogressbar=True), range(2), "layers", " layer"))
    [0, 1]
    """
    hidden = brain.noprogressbar or None  # None: tqdm shows a bar on a terminal only
    return tqdm(steps, text, unit=unit, leave=False, dynamic_ncols=True, disable=hidden)
