"""In how many directions features vary.

Shape suffixes: N frames, D dim.
"""

import numpy as np


def effective_rank(x_ND):
    """The effective rank of centred features, between 1 and their dim; 0 where none varies.

    The exponential of the entropy of the singular values, which are divided by their sum first
    (Roy and Vetterli, The effective rank, EUSIPCO 2007). The mean over frames is taken away
    before, since an offset is no variation. Of few frames it is at most their number less one.

    Arguments
    ---------
    x_ND : array
        Features, shape (frames, dim).

    Returns
    -------
    rank : float

    Example
    -------
    >>> round(effective_rank(np.array([[1, 0, 7], [-1, 0, 7], [0, 1, 7], [0, -1, 7]])), 6)
    2.0
    """
    x_ND = np.asarray(x_ND, dtype=np.float64)
    x_ND = x_ND - x_ND.mean(0)
    # Their squares are the eigenvalues of the smaller product, far cheaper than an SVD.
    product = x_ND.T @ x_ND if x_ND.shape[0] > x_ND.shape[1] else x_ND @ x_ND.T
    values = np.linalg.eigvalsh(product)
    largest = values[-1]
    values = np.sqrt(values[values > largest * len(values) * np.finfo(np.float64).eps])
    if not len(values):
        return 0.0
    shares = values / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
