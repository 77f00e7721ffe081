"""The padding of batches and how full they are, and keys that would make them better.

Shape suffixes: N clips.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from speechbrain.dataio.sampler import DynamicBatchSampler

FACTORS = (2, 4, 8, 16)  # of num_buckets, that are tried
MOST_BUCKETS = 10_000
MOST_CLIPS = 10_000  # with which they are tried
LITTLE = 0.1  # of the seconds
FULLER_FACTORS = (1, 1 / 2, 2, 1 / 4, 4, 1 / 8, 8)  # of num_buckets, for fuller batches
PARTS = (1, 2, 4, 8)  # of batch_seconds
FULL = 0.6  # of batch_seconds
BATCHES = 4  # of an epoch at least


def padding_of(batches: list[list[int]], seconds_N: np.ndarray) -> float:
    """The share of the seconds of batches that is padding.

    Example
    -------
    >>> padding_of([[0, 1], [2, 3]], np.array([1.0, 3.0, 1.0, 1.0]))
    0.25
    """
    batches = [batch for batch in batches if batch]
    sizes = np.array([*map(len, batches)])
    seconds = seconds_N[np.concatenate(batches)]
    longest = np.maximum.reduceat(seconds, np.cumsum(sizes) - sizes)
    return float(1 - seconds.sum() / (longest * sizes).sum())


def better_buckets(seconds_N: np.ndarray, hparams: Mapping[str, Any]) -> tuple[int, float]:
    """A larger ``num_buckets`` that leaves little padding, and the share that it leaves.

    Example
    -------
    >>> hparams = {"num_buckets": 2, "batch_seconds": 100, "seed": 1}
    >>> better_buckets(np.linspace(0.5, 9.5, 500), hparams)[0]
    32
    """
    if len(seconds_N) > MOST_CLIPS:
        seconds_N = np.random.default_rng(hparams["seed"]).choice(seconds_N, MOST_CLIPS, False)
    best = hparams["num_buckets"], 1.0
    for factor in FACTORS:
        buckets = min(factor * hparams["num_buckets"], MOST_BUCKETS)
        batches = _batches_of(seconds_N, hparams["batch_seconds"], buckets, hparams["seed"])
        if (padding := padding_of(batches, seconds_N)) < best[1]:
            best = buckets, padding
        if padding <= LITTLE:
            break
    return best


def fuller_batches(
    seconds_N: np.ndarray, hparams: Mapping[str, Any]
) -> tuple[float, int, float] | None:
    """Keys with which batches hold most of ``batch_seconds``; None if none was found.

    A batch holds clips of one bucket, so the last one of each bucket is not full; and a bucket is
    as wide as few buckets make it, with room for its longest clips. Smaller batches are fuller.

    Returns
    -------
    batch_seconds : float
        That of the recipe, or a part of it.
    num_buckets : int
        The number of buckets.
    held : float
        The seconds of speech that a batch then holds, on average.

    Example
    -------
    >>> hparams = {"num_buckets": 50, "batch_seconds": 20, "seed": 1}
    >>> fuller_batches(np.linspace(3, 5, 24), hparams)[:2]  # 4.8 batches of 20 s at most
    (10.0, 50)
    """
    corpus, best, most = float(seconds_N.sum()), None, 0.0
    for part in PARTS:
        batch = min(hparams["batch_seconds"], corpus / BATCHES)
        batch = float(f"{batch / part:.2g}") if part > 1 or batch == corpus / BATCHES else batch
        for factor in FULLER_FACTORS:
            buckets = min(max(round(factor * hparams["num_buckets"]), 1), MOST_BUCKETS)
            batches = _batches_of(seconds_N, batch, buckets, hparams["seed"])
            held = corpus / len([one for one in batches if one])
            value = held / batch * (1 - padding_of(batches, seconds_N))
            if value > most and held <= batch:  # else clips are longer than a batch
                best, most = (batch, buckets, held), value
        if most >= FULL:
            break
    return best


def _batches_of(
    seconds_N: np.ndarray, batch_seconds: Any, num_buckets: int, seed: int
) -> list[list[int]]:
    logger = logging.getLogger(DynamicBatchSampler.__module__)  # it reports each sampler
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        sampler = DynamicBatchSampler(
            range(len(seconds_N)),
            batch_seconds,
            num_buckets,
            lengths_list=seconds_N.tolist(),
            seed=seed,
        )
    finally:
        logger.setLevel(level)
    return [*itertools.islice(sampler, len(sampler))]
