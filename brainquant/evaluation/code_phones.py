"""How much the codes of a quantiser say about the phones that sound.

Shape suffixes: N frames, G codebooks, V codes, P phones.
"""

import numpy as np


def code_phone_statistics(codes_NG, phones_N, *, seed=0):
    """Phone purity, cluster purity and PNMI as HuBERT measures them, each a mean of codebooks.

    Phone purity: share of frames whose phone is the commonest one of their code. Cluster purity:
    share of frames whose code is the commonest one of their phone. PNMI: the part of the phones'
    entropy that the code takes away, I(phone; code) / H(phone).
    Section IV-B of https://arxiv.org/abs/2106.07447.

    Many codes on few frames look good whatever they are: phone purity and PNMI of one code per
    frame are 1. Hence the same of shuffled codes, which know nothing; count what is above it.

    Arguments
    ---------
    codes_NG : array
        Codes of the frames, shape (frames, codebooks), integers from 0.
    phones_N : array
        Phones of the same frames, any labels.
    seed : int
        Shuffles the codes over the frames.

    Returns
    -------
    statistics : dict
        ``phone_purity``, ``cluster_purity``, ``pnmi``; the same under ``shuffled``;
        ``code_perplexity`` (mean of codebooks) and ``frames``.

    Example
    -------
    >>> codes = np.array([[0], [0], [1], [2]])
    >>> statistics = code_phone_statistics(codes, np.array(["s", "s", "s", "a"]))
    >>> statistics["phone_purity"], statistics["cluster_purity"], round(statistics["pnmi"], 6)
    (1.0, 0.75, 1.0)
    """
    codes_NG = np.asarray(codes_NG)
    if codes_NG.ndim != 2 or len(codes_NG) != len(phones_N) or not len(phones_N):
        raise ValueError(
            f"codes must have the shape (frames, codebooks), with a phone for each frame, got "
            f"{codes_NG.shape} and {len(phones_N)} phones; give codes[:, None] for one codebook"
        )
    _, phones_N = np.unique(phones_N, return_inverse=True)
    shuffled_NG = np.random.default_rng(seed).permutation(codes_NG)

    def mean(codes_NG):
        by_codebook = [_of_codebook(codes_N, phones_N) for codes_N in codes_NG.T]
        return {name: float(np.mean([s[name] for s in by_codebook])) for name in by_codebook[0]}

    statistics, shuffled = mean(codes_NG), mean(shuffled_NG)
    shuffled.pop("code_perplexity")  # shuffling does not change it
    return {**statistics, "shuffled": shuffled, "frames": len(phones_N)}


def _of_codebook(codes_N, phones_N):
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


def _entropy(shares):
    shares = shares[shares > 0]
    return -(shares * np.log(shares)).sum()
