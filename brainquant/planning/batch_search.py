"""The search for the largest batch that fits, by steps of a trial."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from .capacity import data_bytes
from .largest_batch import BatchShape, batch_shapes
from .memory import MARGIN, key_of_size, round_values
from .trial_run import TrialRun

# What torch says on a CPU, where its error has no class of its own.
NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "could not create a memory")


class TriedBatch(NamedTuple):
    """A try of ``find_batch``.

    Attributes
    ----------
    value : float
        ``batch_seconds``, or ``batch_clips``.
    clips : int
        Clips of the largest batch that the sampler then makes.
    longest_seconds : float
        Its longest clip.
    fits : bool
        Whether its step had enough memory.
    peak_bytes : int or None
        What it needed; None if there was not enough.
    """

    value: float
    clips: int
    longest_seconds: float
    fits: bool
    peak_bytes: int | None


class FoundBatch(NamedTuple):
    """What ``find_batch`` found.

    Attributes
    ----------
    key : str
        ``batch_seconds``, or ``batch_clips`` if the recipe sets it.
    value : float or None
        The largest value that fits; None if none does.
    tries : list of TriedBatch
        In their order.
    whole : bool
        Whether the next larger value was tried; otherwise the time was over.
    room_bytes : int or None
        What a step may need: all free memory but the margin.
    """

    key: str
    value: float | None
    tries: list[TriedBatch]
    whole: bool
    room_bytes: int | None


class BatchSearch:
    """Tries values of the key that sets the size of a recipe's batches.

    Arguments
    ---------
    run : TrialRun
        Its Brain is ready for steps.
    """

    def __init__(self, run: TrialRun) -> None:
        self.run = run
        self.key = key_of_size(run.hparams)
        self.room = None
        if run.capacity is not None:
            self.room = round((1 - MARGIN) * run.capacity.available)
        self.tries: list[TriedBatch] = []

    def find(self) -> FoundBatch:
        """Searches until the next larger value does not fit, or the time is over."""
        values = sorted({*round_values(self.run.clips, self.key), self.run.hparams[self.key]})
        start = values.index(self.run.hparams[self.key])
        value, whole = search(values, start, self.fits, self.has_time)
        return FoundBatch(self.key, value, self.tries, whole, self.room)

    def has_time(self) -> bool:
        """Whether another value may be tried; the first always is."""
        return not self.tries or time.perf_counter() < self.run.until

    def fits(self, value: float) -> bool:
        """Whether the largest batches that a value makes have enough memory."""
        value = int(value) if self.key == "batch_clips" else value
        shapes = batch_shapes(self.run.clips, {**self.run.hparams, self.key: value})
        # The longest clips, in whose batches attention needs the most, and the most seconds.
        by_seconds = max(shapes, key=lambda shape: shape.padded_seconds)
        by_attention = max(shapes, key=lambda s: s.padded_seconds * s.longest_seconds)
        for shape in dict.fromkeys((by_attention, by_seconds)):
            peak = self.peak_of(shape)
            fits = peak is not None and (self.room is None or peak <= self.room)
            if not fits:
                break
        self.tries.append(TriedBatch(value, shape.clips, shape.longest_seconds, fits, peak))
        return fits

    def peak_of(self, shape: BatchShape) -> int | None:
        """The memory of a step on a batch; None if there is not enough."""
        self.run.memory.give_back()
        clips = self.run.similar(shape.longest_seconds, shape.clips)
        # What the heap keeps mapped after an earlier try is not resident, and does not count.
        on_gpu, now = self.run.memory.on_gpu, self.run.memory.now()
        with limited(None if on_gpu or self.room is None else self.room - now):
            try:
                return self.run.of_batch(clips).peak_bytes
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
        self.recover()  # outside of the except clause, whose traceback holds the tensors
        return None

    def recover(self) -> None:
        """Forgets the step that failed, so that the next one finds the memory of a new process."""
        self.run.brain.optimizer.zero_grad(set_to_none=True)
        for module in self.run.brain.steps.gatherers:
            module.end_step()
        self.run.brain.steps.start_epoch()
        gc.collect()
        self.run.memory.give_back()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no more memory.

    Example
    -------
    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 4 bytes"))
    True
    >>> is_out_of_memory(RuntimeError("sizes do not match"))
    False
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(text in str(error) for text in NO_MEMORY)


@contextmanager
def limited(growth: int | None) -> Iterator[None]:
    """Lets this process map so many more bytes; an allocation beyond them is an error.

    Linux only: without it the system kills the process, or another one.

    Example
    -------
    >>> with limited(2**28):
    ...     try:
    ...         _ = torch.ones(2**30)
    ...     except RuntimeError as error:
    ...         print(is_out_of_memory(error))
    True
    """
    mapped = data_bytes()
    if growth is None or mapped is None:
        yield
        return
    import resource  # Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = mapped + max(growth, 0)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def search(
    values: Sequence[float], start: int, fits: Callable[[float], bool], go_on: Callable[[], bool]
) -> tuple[float | None, bool]:
    """The largest value that fits: doubles the distance from the start, then bisects.

    Arguments
    ---------
    values : sequence of float
        In ascending order. If one fits, those before it are taken to fit as well.
    start : int
        The index to begin with.
    fits : callable
        Tries a value.
    go_on : callable
        Whether there is time for another try.

    Returns
    -------
    value : float or None
        The largest that was tried and fits; None if there is none.
    whole : bool
        Whether the search came to its end.

    Example
    -------
    >>> tries = []
    >>> search(range(100), 10, lambda value: tries.append(value) or value <= 37, lambda: True)
    (37, True)
    >>> tries
    [10, 11, 13, 17, 25, 41, 33, 37, 39, 38]
    """
    low, high, distance, index = -1, len(values), 1, start
    while high - low > 1 and go_on():
        if fits(values[index]):
            low = index
        else:
            high = index
        if low < 0 or high == len(values):  # one side is open
            index = index + distance if low >= 0 else index - distance
            distance *= 2
            if not low < index < high:
                index = (low + high) // 2
        else:
            index = (low + high) // 2
    return (values[low] if low >= 0 else None), high - low <= 1
