"""A random sample of the clips of a run, read as training reads them, within a time.

Shape suffixes: N clips of training and validation together.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from ...data.audio.files import BadAudio
from ...data.audio.headers import read_header
from ...data.workers import LeftOutClip
from .listed import Split
from .sound import Sound, measure

TOGETHER = 50  # clips at most that are drawn together
MOST_THREADS = 8  # that read and measure
SPEED = 200  # seconds of speech that a thread reads in a second, at least


class Reading(NamedTuple):
    """A clip that was read.

    Attributes
    ----------
    split : int
        0: training, 1: validation.
    clip : str
        Its ID.
    row : dict
        Its row in the manifest.
    group : int
        Clips of one group have the same length and the same place in their files, as copies have.
    sound : Sound or None
        None if it cannot be read.
    reason : str
        Why it cannot be read.
    sample_rate, channels : int
        Of its file, in Hz; 0 if it cannot be read.
    """

    split: int
    clip: str
    row: Mapping[str, Any]
    group: int
    sound: Sound | None
    reason: str = ""
    sample_rate: int = 0
    channels: int = 0


class Sample(NamedTuple):
    """What was read.

    Attributes
    ----------
    readings : list of Reading
        In the order of their IDs, those of training first.
    group_sizes : tuple of numpy.ndarray
        For training and for validation, the number of all clips in each group.
    seconds : float
        The time that it took.
    """

    readings: list[Reading]
    group_sizes: tuple[np.ndarray, ...]
    seconds: float


def read_sample(
    loaders: list[Any], splits: list[Split], *, sample_rate: int, seconds: float, seed: int
) -> Sample:
    """Reads clips of training and validation in a random order until the time is over.

    Copies of a clip must be read together to be found, and two clips of a large corpus rarely are.
    Therefore clips of the same length, up to 50, are drawn together. Each clip is as likely to be
    drawn as any other.

    Arguments
    ---------
    loaders : list of torch.utils.data.DataLoader
        Of training and, if there is one, of validation.
    splits : list of Split
        The clips of each.
    sample_rate : int
        That of the waveforms.
    seconds : float
        Clips that are too long for the time that is left are not begun. At least one clip is read,
        even if it takes longer.
    seed : int
        Another seed draws other clips.
    """
    began = time.monotonic()
    group_N = groups_of(splits)
    sizes = [len(split.clips) for split in splits]
    first_of = np.cumsum([0, *sizes])
    clips = [[*split.clips.items()] for split in splits]

    def read(number: int) -> Reading:
        which = int(np.searchsorted(first_of, number, "right")) - 1
        place = number - int(first_of[which])
        clip, row = clips[which][place]
        return hear_clip(
            loaders[which].dataset[place], which, clip, row, int(group_N[number]), sample_rate
        )

    order = order_of(group_N, np.random.default_rng(seed))
    seconds_N = np.concatenate([split.selection.seconds_N for split in splits])
    jobs = zip(order.tolist(), (seconds_N[order] / SPEED).tolist())
    readings = _in_threads(read, jobs, began + seconds) or [read(int(seconds_N.argmin()))]
    readings.sort(key=lambda reading: (reading.split, reading.clip))
    counted = [
        np.bincount(group_N[first:last], minlength=int(group_N.max()) + 1)
        for first, last in zip(first_of, first_of[1:])
    ]
    return Sample(readings, tuple(counted), time.monotonic() - began)


def groups_of(splits: list[Split]) -> np.ndarray:
    """The group of each clip: see ``Reading``.

    Parts of one file are in different groups: they are no copies of each other.
    """
    seconds_N = np.concatenate([split.selection.seconds_N for split in splits])
    keys = [np.round(seconds_N * 100).astype(np.int64)]
    if any("start" in next(iter(split.clips.values())) for split in splits):
        place_N = [
            row["start"] / (row["stop"] - row["start"]) if row.get("start") else 0.0
            for split in splits
            for row in split.clips.values()
        ]
        keys.append(np.round(np.array(place_N) * 10).astype(np.int64))
    return np.unique(np.stack(keys), axis=1, return_inverse=True)[1].reshape(-1)


def order_of(group_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An order of all clips in which clips of a group follow each other, at most 50 of them.

    Example
    -------
    >>> order = order_of(np.array([0, 1, 0, 2]), np.random.default_rng(1))
    >>> sorted(order.tolist()), abs(order.tolist().index(0) - order.tolist().index(2))
    ([0, 1, 2, 3], 1)
    """
    order_N = rng.permutation(len(group_N))
    order_N = order_N[np.argsort(group_N[order_N], kind="stable")]
    sorted_N = group_N[order_N]
    starts = np.flatnonzero(np.diff(sorted_N, prepend=-1))
    place_N = np.arange(len(group_N)) - np.repeat(starts, np.diff(starts, append=len(group_N)))
    unit_N = np.cumsum(place_N % TOGETHER == 0) - 1
    return order_N[np.argsort(rng.permutation(unit_N[-1] + 1)[unit_N], kind="stable")]


def _in_threads(
    read: Callable[[int], Reading], jobs: Iterator[tuple[int, float]], deadline: float
) -> list[Reading]:
    """Reads clips until the deadline; a job is a clip and the time that it takes at most."""
    lock, ended, readings = threading.Lock(), threading.Event(), []

    def work() -> None:
        while not ended.is_set() and (left := deadline - time.monotonic()) > 0:
            with lock:
                number, needed = next(jobs, (None, 0.0))
            if number is None:
                return
            if needed <= left:
                readings.append(read(number))

    threads = min(MOST_THREADS, 2 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(work) for _ in range(threads)]
        try:
            for one in running:
                one.result()
        finally:
            ended.set()
    return readings


def hear_clip(
    item: Any, split: int, clip: str, row: Mapping[str, Any], group: int, sample_rate: int
) -> Reading:
    """Measures an item of ``ReadableClips``."""
    try:
        if isinstance(item, LeftOutClip):
            raise BadAudio(item.reason)
        # It was read a moment ago, and is kept.
        header = read_header(row["wav"], row.get("offset"), row.get("size"))
    except BadAudio as error:
        return Reading(split, clip, row, group, None, str(error))
    sound = measure(item["sig"].numpy(), sample_rate)
    return Reading(split, clip, row, group, sound, "", header.sample_rate, header.num_channels)
