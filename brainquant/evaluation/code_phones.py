"""How much the codes of a quantiser say about the phones.

Shape suffixes: N frames, G codebooks, V codes, P phones.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def code_phone_statistics(
    codes_NG: ArrayLike, phones_N: ArrayLike, *, seed: int = 0
) -> dict[str, Any]:
    """Phone purity, cluster purity and PNMI, as HuBERT measures them, averaged over codebooks.

    Phone purity: the share of frames whose phone is the most frequent one of their code. Cluster
    purity: the share of frames whose code is the most frequent one of their phone. PNMI: the share
    of the phones' entropy that the code explains, I(phone; code) / H(phone).
    Section IV-B of https://arxiv.org/abs/2106.07447.

    Many codes on few frames always look good: with one code per frame, phone purity and PNMI are 1.
    Compare them with the same measures of shuffled codes, which contain no information.

    Arguments
    ---------
    codes_NG : array
        The codes of the frames, shape (frames, codebooks), integers from 0.
    phones_N : array
        The phones of the same frames, any labels.
    seed : int
        Seed for shuffling the codes over the frames.

    Returns
    -------
    statistics : dict
        ``phone_purity``, ``cluster_purity``, ``pnmi``; the same under ``shuffled``;
        ``code_perplexity`` (mean over codebooks) and ``frames``.

    Example
    -------
    >>> codes = np.array([[0], [0], [1], [2]])
    >>> statistics = code_phone_statistics(codes, np.array(["s", "s", "s", "a"]))
    >>> statistics["phone_purity"], statistics["cluster_purity"], round(statistics["pnmi"], 6)
    (1.0, 0.75, 1.0)
    """
    codes_NG, phones_N = np.asarray(codes_NG), np.asarray(phones_N)
    if codes_NG.ndim != 2 or len(codes_NG) != len(phones_N) or not len(phones_N):
        raise ValueError(
            f"codes must have the shape (frames, codebooks), with a phone for each frame, got "
            f"{codes_NG.shape} and {len(phones_N)} phones; give codes[:, None] for one codebook"
        )
    _, phones_N = np.unique(phones_N, return_inverse=True)
    shuffled_NG = np.random.default_rng(seed).permutation(codes_NG)

    def mean(codes_NG: np.ndarray) -> dict[str, float]:
        by_codebook = [_of_codebook(codes_N, phones_N) for codes_N in codes_NG.T]
        return {name: float(np.mean([s[name] for s in by_codebook])) for name in by_codebook[0]}

    statistics, shuffled = mean(codes_NG), mean(shuffled_NG)
    shuffled.pop("code_perplexity")  # shuffling does not change it
    return {**statistics, "shuffled": shuffled, "frames": len(phones_N)}


def _of_codebook(codes_N: np.ndarray, phones_N: np.ndarray) -> dict[str, float]:
    _, codes_N = np.unique(codes_N, return_inverse=True)
    counts_VP = np.zeros((codes_N.max() + 1, phones_N.max() + 1))
    np.add.at(counts_VP, (codes_N, phones_N), 1)
    joint_VP = counts_VP / len(phones_N)
    phone_entropy, code_entropy = _entropy(joint_VP.sum(0)), _entropy(joint_VP.sum(1))
    information = phone_entropy + code_entropy - _entropy(joint_VP)
    return {
        "phone_purity": joint_VP.max(1).sum(),
        "cluster_purity": joint_VP.max(0).sum(),
        "pnmi": information / phone_entropy if phone_entropy > 0 else 0.0,
        "code_perplexity": np.exp(code_entropy),
    }


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return -(shares * np.log(shares)).sum()
