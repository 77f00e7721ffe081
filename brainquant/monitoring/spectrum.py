"""Measures in how many directions features vary.

Shape suffixes: N frames, D dim.
"""

import numpy as np


def effective_rank(x_ND: np.ndarray) -> float:
    """The effective rank of features, between 1 and their dim; 0 if all frames are equal.

    It is the exponential of the entropy of the singular values, divided by their sum (Roy and
    Vetterli, The effective rank, EUSIPCO 2007). The mean over frames is subtracted first, because
    an offset is no variation. So N frames have at most rank N - 1.

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
    # The squares of the singular values are the eigenvalues of the smaller product. This is far
    # cheaper than an SVD.
    product = x_ND.T @ x_ND if x_ND.shape[0] > x_ND.shape[1] else x_ND @ x_ND.T
    return rank_of_variances(np.linalg.eigvalsh(product))


def rank_of_variances(variances: np.ndarray) -> float:
    """The effective rank of features that vary so much in each of their principal directions.

    Arguments
    ---------
    variances : array
        Squares of the singular values, in any unit.

    Example
    -------
    >>> round(rank_of_variances(np.array([3.0, 3.0, 0.0])), 6)
    2.0
    """
    least = variances.max() * len(variances) * np.finfo(np.float64).eps
    values = np.sqrt(variances[variances > least])
    if not len(values):
        return 0.0
    shares = values / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
