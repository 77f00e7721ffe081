"""The steps of a trial, on a Brain that was just built."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from speechbrain import Stage

from .capacity import Capacity, PeakMemory
from .largest_batch import BatchShape, batch_shapes, durations_of, epochs_of
from .memory_model import attention_ratio
from .trial_steps import TrialStep

SHARES = (1 / 8, 1 / 4, 1 / 2)  # of the clips of the largest batch, in one series after another
SERIES = 12  # batches of a series at most
MEMORY_TIME = 0.55  # of the time that is left when the Brain is built; the pace gets the rest
SAFE = 0.9  # of the available memory
MAX_PACE = 50  # steps
QUICK = 1.0  # seconds of a step that is made even if the time is over


class TrialRun:
    """Makes optimiser steps as a run makes them; nothing is logged or saved.

    Arguments
    ---------
    brain : RunBrain
        Its ``output_folder`` is not that of a run.
    train_loader : torch.utils.data.DataLoader
        Of ``make_loaders``, without workers: reading takes place in this process.
    hparams : dict
        The keys that make the batches.
    capacity : Capacity or None
        The memory for the steps; None if it is not known.
    until : float
        When to end, as ``time.perf_counter`` counts. A step that has begun ends later.
    """

    def __init__(
        self,
        brain: Any,
        train_loader: Any,
        hparams: Mapping[str, Any],
        *,
        capacity: Capacity | None = None,
        until: float = math.inf,
    ) -> None:
        self.brain = brain
        self.loader = train_loader
        self.dataset = train_loader.dataset
        self.clips = train_loader.dataset.dataset
        self.hparams = hparams
        self.capacity = capacity
        # No step is tried that would need more.
        self.most = SAFE * capacity.available if capacity else math.inf
        self.note: Callable[[str], None] = lambda text: None  # called with what is done now
        self.until = until
        self.memory = PeakMemory(brain.device)

    def prepare(self, valid_loader: Any) -> None:
        """What a run does before its first step, the fit of its quantiser included."""
        brain = self.brain
        brain.hparams.freeze_steps = 0  # the steps after them need more
        brain.prepare_fit(self.loader, valid_loader)
        brain.on_fit_start()
        if hasattr(brain, "start_loss"):
            brain.start_loss.is_wanted = False  # a whole validation takes too long
        next(iter(brain.hparams.epoch_counter))
        brain.on_stage_start(Stage.TRAIN)
        brain.modules.train()
        brain.place.start_epoch(brain.train_sampler, 1)
        brain.steps.start_epoch()
        self.accumulation = brain.place.accumulation
        brain.place.turns = math.inf  # steps are as full in the middle of an epoch

    def step(self, batches: Sequence[Sequence[int]]) -> TrialStep:
        """An optimiser step on batches of these clips."""
        brain, read, busy = self.brain, 0.0, 0.0
        brain.place.accumulation = len(batches)
        brain.optimizer_step = 0  # so neither the limit of steps nor a log point is reached
        seconds = [self.seconds_of(clips) for clips in batches]
        longest = max(map(max, seconds))
        self.note(f"a step of {len(batches)} x {len(batches[0])} clips of up to {longest:.1f} s")
        self.memory.start()
        for turn, clips in enumerate(batches, start=1):
            began = time.perf_counter()
            batch = self.loader.collate_fn([self.dataset[clip] for clip in clips])
            ready = time.perf_counter()
            brain.step = turn
            brain.fit_batch(batch)
            if self.memory.on_gpu:
                torch.cuda.synchronize(self.memory.device)
            read, busy = read + ready - began, busy + time.perf_counter() - ready
        self.last = TrialStep(
            batches=len(batches),
            speech_seconds=sum(map(sum, seconds)),
            padded_seconds=sum(len(lengths) * max(lengths) for lengths in seconds),
            clips=sum(map(len, seconds)),
            longest_seconds=longest,
            seconds=busy,
            reading_seconds=read,
            peak_bytes=self.memory.peak(),
        )
        return self.last

    def of_batch(self, clips: Sequence[int]) -> TrialStep:
        """A step on a batch; on two alike if the recipe accumulates.

        The second forward then finds the gradients of the first, as all but one do in a run.
        """
        return self.step([clips] * min(self.accumulation, 2))

    def seconds_of(self, clips: Sequence[int]) -> list[float]:
        """Seconds of clips."""
        return durations_of(self.clips, clips)

    def similar(self, seconds: float, count: int) -> list[int]:
        """The longest clips that are not above a length; some come twice if there are too few."""
        self.by_length = getattr(self, "by_length", None) or sorted(
            range(len(self.clips)), key=lambda clip: self.seconds_of([clip])[0]
        )
        lengths = self.seconds_of(self.by_length)
        last = max(sum(length <= seconds for length in lengths), 1)
        chosen = self.by_length[max(last - count, 0) : last][::-1]
        return [chosen[number % len(chosen)] for number in range(count)]

    # ---- the memory ------------------------------------------------------------------------

    def measure_floor(self) -> tuple[int, int]:
        """Bytes between steps and in a step on the shortest clip, once everything is warm."""
        for _ in range(2):
            step = self.of_batch(self.similar(0.0, 1))
        self.memory.give_back()
        return self.memory.now(), step.peak_bytes

    def measure_ramp(self, floor: int) -> list[TrialStep]:
        """Steps on the longest clips, each on twice as many, up to the smallest share of a run's.

        A batch that is far larger than the memory must not end the trial. If there is no time for
        one of these steps, the last step on the shortest clip stands for them.
        """
        longest = max(shape.longest_seconds for shape in batch_shapes(self.clips, self.hparams))
        largest = max(s.padded_seconds for s in batch_shapes(self.clips, self.hparams))
        self.enough = max(round(largest * SHARES[0] / longest), 1)
        count, steps = 1, []
        if self.is_late(longest):
            return [self.last]
        while True:
            steps.append(self.of_batch(self.similar(longest, count)))
            if count == self.enough or self.twice_is_too_much(steps[-1], floor):
                return steps
            count = min(2 * count, self.enough)
            if self.is_late(count * longest):
                return steps

    def is_whole(self, ramp: Sequence[TrialStep]) -> bool:
        """Whether a ramp has come to its end, and there is time for more."""
        last = ramp[-1]
        enough = last.clips == self.enough * last.batches
        return enough and not self.is_late(last.padded_seconds / last.batches)

    def twice_is_too_much(self, step: TrialStep, floor: int) -> bool:
        """Whether a batch of twice the size might not fit."""
        return floor + 2 * (step.peak_bytes - floor) > self.most

    def measure_shapes(self, ramp: Sequence[TrialStep]) -> list[TrialStep]:
        """Two steps of as many padded seconds, on long clips and on clips half as long."""
        count, longest = ramp[-1].clips // ramp[-1].batches, ramp[-1].longest_seconds
        if self.is_late(2 * count * longest):
            return []
        steps = []
        for seconds, clips in ((longest, count), (longest / 2, 2 * count)):
            self.memory.give_back()  # or the second one shows the peak of the first
            steps.append(self.of_batch(self.similar(seconds, clips)))
        self.memory.give_back()
        long, short = steps
        return steps if long.longest_seconds > 1.3 * short.longest_seconds else []

    def measure_memory(
        self, ramp: list[TrialStep], shapes: Sequence[TrialStep], floor: int
    ) -> list[TrialStep]:
        """The largest step of each series of batches, which have a share of a run's clips.

        The ramp, if there is no time for two series.

        In a run each batch has another length, and glibc finds no hole of the right size for its
        tensors, unless they are mapped by themselves (above 32 MiB). So the memory of a CPU run
        grows with the batches that it has seen, up to twice that of one batch: a series of batches
        grows in the same way, and a single step would not.
        """
        ratio = attention_ratio(shapes, floor)
        largest = max(
            batch_shapes(self.clips, self.hparams),
            key=lambda shape: shape.padded_seconds * (1 + ratio * shape.longest_seconds),
        )
        of_run = epochs_of(self.clips, self.hparams, 1)
        of_run = [b for b in of_run if len(b) > 1 or largest.clips == 1][:SERIES]
        now = time.perf_counter
        until = now() + MEMORY_TIME * (self.until - now())
        parts = parts_of(largest)
        steps: list[TrialStep] = []
        for number, (share, count, seconds) in enumerate(parts):
            # The largest step says the most: it comes before the series and before the pace.
            if self.is_late(count * seconds):
                break
            if steps and self.twice_is_too_much(steps[-1], floor):
                break
            peak = 0
            for batch in of_run:
                left = sum(self.cost(clips * length) for _, clips, length in parts[number:])
                if now() + left + self.cost(count * seconds) > until:
                    break
                part = batch[: max(round(len(batch) * share), 1)]
                peak = max(peak, self.of_batch(part).peak_bytes)
            step = self.of_batch(self.similar(seconds, count))
            steps.append(step._replace(peak_bytes=max(peak, step.peak_bytes)))
        return steps if len(steps) > 1 else max(steps, ramp, key=len)

    def cost(self, padded_seconds: float) -> float:
        """The time of a step like ``of_batch`` on so many seconds, judged by the last step."""
        last = self.last
        per_second = (last.seconds + last.reading_seconds) / last.padded_seconds
        return per_second * padded_seconds * last.batches

    def is_late(self, padded_seconds: float) -> bool:
        """Whether such a step takes more than the time that is left, and is not a quick one."""
        return self.cost(padded_seconds) > max(self.until - time.perf_counter(), QUICK)

    # ---- the time --------------------------------------------------------------------------

    def measure_pace(self) -> list[TrialStep]:
        """Steps on the batches of the first epoch, in their order, until the time is over."""
        batches, steps = epochs_of(self.clips, self.hparams, 1), []
        first_seconds = self.seconds_of(batches[0])
        of_batch = self.cost(len(first_seconds) * max(first_seconds)) / self.last.batches
        left = self.until - time.perf_counter()
        if of_batch > max(left, QUICK):
            return []
        number, first = max(min(self.accumulation, int(left / of_batch)), 1), 0
        while len(steps) < MAX_PACE and first + number <= len(batches):
            steps.append(self.step(batches[first : first + number]))
            first += number
            taken = steps[-1].seconds + steps[-1].reading_seconds
            left = self.until - time.perf_counter()
            # A step of many batches may be too long: the time of a few of them says the same.
            number = max(min(self.accumulation, int(left / taken * steps[-1].batches)), 1)
            if taken / steps[-1].batches > left:
                break
        return steps[1:] or steps


def parts_of(largest: BatchShape) -> list[tuple[float, int, float]]:
    """Share, clips and seconds of a clip for each series: parts of the largest batch.

    Example
    -------
    >>> parts_of(BatchShape(40, 5.0))
    [(0.125, 5, 5.0), (0.25, 10, 5.0), (0.5, 20, 5.0)]
    >>> parts_of(BatchShape(1, 40.0))
    [(0.125, 1, 5.0), (0.25, 1, 10.0), (0.5, 1, 20.0)]
    """
    parts = []
    for share in SHARES:
        count = max(round(largest.clips * share), 1)
        whole = largest.clips * SHARES[0] >= 1
        seconds = largest.longest_seconds
        parts.append((share, count, seconds if whole else seconds * largest.clips * share / count))
    return parts
