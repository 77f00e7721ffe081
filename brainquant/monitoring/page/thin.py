"""Fewer points for a curve: what a screen cannot show is left out, what stands out is kept."""

# N points of a curve, P parts of it, W points of a part
from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def thin(x: Sequence[float], y: Sequence[float | None], most: int) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the lowest and the highest of neighbouring points, and a gap among them.

    Arguments
    ---------
    x, y : sequence of float
        The points of a curve, in their order. None, NaN and infinite values of y are gaps.
    most : int
        How many points are kept, about; the first and the last always are.

    Returns
    -------
    x, y : np.ndarray
        The points that are kept. Gaps are NaN.

    Example
    -------
    >>> y = np.zeros(10_000)
    >>> y[4321] = 7.0
    >>> kept_x, kept_y = thin(range(10_000), y, 100)
    >>> len(kept_x) <= 102, float(kept_y.max()), float(kept_x[-1])
    (True, 7.0, 9999.0)
    """
    x_N, y_N = np.asarray(x, dtype=float), np.array(y, dtype=float)
    gap_N = ~np.isfinite(y_N)
    y_N[gap_N] = np.nan
    longer_N = gap_N & np.roll(gap_N, 1)  # a gap of any length is one
    longer_N[:1] = False
    x_N, y_N, gap_N = (values[~longer_N] for values in (x_N, y_N, gap_N))
    if len(x_N) <= most:
        return x_N, y_N
    width = -(-2 * len(x_N) // max(2, most))
    beyond = (0, -len(x_N) % width)
    lowest_PW = np.pad(np.where(gap_N, np.inf, y_N), beyond, constant_values=np.inf)
    highest_PW = np.pad(np.where(gap_N, np.inf, -y_N), beyond, constant_values=np.inf)
    starts_P = np.arange(0, len(x_N), width)
    kept_N = np.zeros(len(x_N), dtype=bool)
    for values in (lowest_PW, highest_PW):
        kept_N[starts_P + values.reshape(-1, width).argmin(1)] = True
    gaps = np.flatnonzero(gap_N)
    kept_N[gaps[np.unique(gaps // width, return_index=True)[1]]] = True  # the first of a part
    kept_N[[0, -1]] = True
    return x_N[kept_N], y_N[kept_N]


def fair_share(lengths: Sequence[int], budget: int, least: int) -> int:
    """How many points each curve may have, so that all of them together keep to a budget.

    Arguments
    ---------
    lengths : sequence of int
        The points that the curves have. A short curve leaves its share to the others.
    budget : int
        Points of all curves.
    least : int
        A curve may have so many in any case.

    Returns
    -------
    most : int

    Example
    -------
    >>> fair_share([10, 1000, 1000], budget=410, least=50)
    200
    """
    lengths = sorted(lengths)
    for number, length in enumerate(lengths):
        share = budget // (len(lengths) - number)
        if length > share:
            return max(least, share)
        budget -= length
    return max(least, *lengths, 0) if lengths else least
