"""How fast clips are read and decoded by several workers."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from ..data.workers import AudioLoader, ReadableClips, leave_signals_to_main
from .length import clip_seconds

SMALL_BATCH = 20.0  # seconds of speech: there are enough of them in a short measurement


def reading_speeds(loader: Any, workers: Sequence[int], *, seconds: float) -> dict[int, float]:
    """Seconds of speech that are read in a second, by the number of workers.

    Every number of workers reads other clips, so that none finds the files of the one before in
    memory, as long as there are enough.

    Arguments
    ---------
    loader : torch.utils.data.DataLoader
        The training loader of ``make_loaders``.
    workers : sequence of int
        Numbers of workers; 0 is the main process.
    seconds : float
        Time for all of them.

    Returns
    -------
    speeds : dict of int to float
    """
    lengths = clip_seconds(loader)
    batches = small_batches(loader.batch_sampler, lengths)
    speeds = {}
    for turn, number in enumerate(workers):
        start = turn * len(batches) // len(workers)
        order = [*batches[start:], *batches[:start]]
        measured = _speed(loader, order, lengths, number, seconds / len(workers))
        if measured is not None:
            speeds[number] = measured
    return speeds


def small_batches(batches: Iterable[Sequence[int]], lengths: Sequence[float]) -> list[list[int]]:
    """Batches of about 20 s of the same clips in the same order.

    Example
    -------
    >>> small_batches([[0, 1, 2], [3]], [15.0, 15.0, 1.0, 2.0])
    [[0, 1], [2, 3]]
    """
    small: list[list[int]] = [[]]
    held = 0.0
    for clip in (clip for batch in batches for clip in batch):
        if held >= SMALL_BATCH:
            small.append([])
            held = 0.0
        small[-1].append(clip)
        held += lengths[clip]
    return small


def _speed(
    loader: Any, batches: list[list[int]], lengths: Sequence[float], workers: int, seconds: float
) -> float | None:
    """Seconds of speech a second; None if there are too few batches to say."""
    dataset = loader.dataset
    if isinstance(dataset, ReadableClips):
        dataset = ReadableClips(dataset.dataset, workers)
    with warnings.catch_warnings():  # torch warns if there are fewer cores
        warnings.simplefilter("ignore")
        reader = AudioLoader(
            dataset,
            batch_sampler=batches,  # pyright: ignore[reportArgumentType]
            collate_fn=loader.collate_fn,
            num_workers=workers,
            worker_init_fn=leave_signals_to_main,
        )
        iterator = iter(reader)
    end = time.monotonic() + seconds
    warm, read, began = max(workers, 1), 0.0, 0.0
    number = 0
    try:
        for number, batch in enumerate(batches):
            if number == warm:
                began = time.monotonic()
            next(iterator)
            if number >= warm:
                read += sum(lengths[clip] for clip in batch)
            if number > 2 * warm and time.monotonic() > end:
                break
        taken = time.monotonic() - began
    finally:
        del iterator  # ends the workers
    return read / taken if number > warm and taken > 0 else None
