"""The padding of batches, and how many buckets would make less of it.

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
