"""How far a probe is, for those who wait for it."""

from tqdm import tqdm


def progress_bar(brain, steps, text, unit):
    """Goes through what is to be done, with a bar on a terminal, unless ``--noprogressbar`` is set.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> list(progress_bar(SimpleNamespace(noprogressbar=True), range(2), "layers", " layer"))
    [0, 1]
    """
    hidden = brain.noprogressbar or None  # None: where nobody sees it
    return tqdm(steps, text, unit=unit, leave=False, dynamic_ncols=True, disable=hidden)
