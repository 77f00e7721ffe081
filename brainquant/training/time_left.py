"""When a training will be done, from what is left of it and the pace of its last minutes."""

from __future__ import annotations

import math
import re
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from speechbrain.utils.logger import get_logger

from .time_text import duration_text, moment_text

logger = get_logger(__name__)

WARMUP_BATCHES = 5  # kernels are compiled and caches are filled in them
MIN_SECONDS, MIN_BATCHES = 10.0, 3  # of the shortest measurement of a pace
WINDOW_SECONDS = 600.0  # of the training whose pace counts
MARK_SECONDS = 1.0  # from one look at the time that is left to the next
PAUSES_KEPT = 3  # of each kind; their median counts
VALIDATION_SHARE = 0.4  # of the seconds of a training batch, until a validation was measured

EPOCH_END, CHECKPOINT, QUALITY = "the end of an epoch", "a checkpoint", "the quality"


class Limits(NamedTuple):
    """What ends a training, and what it does besides its steps.

    Attributes
    ----------
    steps : float
        Optimiser steps of the whole run; infinite for no limit.
    epochs_left : float
        Epochs after this one.
    accumulation : int
        Batches of a step on each rank.
    turns : int
        Batches of an epoch on each rank.
    frozen_steps : int
        The first steps, which are quicker than the others.
    valid_batches : int
        Batches of a validation.
    save_seconds, save_batches : float
        From one checkpoint to the next within an epoch; infinite for none.
    quality_steps : float
        Steps from one measurement of the quality to the next; infinite for none.
    quality_step : int
        The step of the last measurement, which are made between epochs only.
    """

    steps: float
    epochs_left: float
    accumulation: int = 1
    turns: int = 1
    frozen_steps: int = 0
    valid_batches: int = 0
    save_seconds: float = math.inf
    save_batches: float = math.inf
    quality_steps: float = math.inf
    quality_step: int = 0


class Work(NamedTuple):
    """What is left: batches of each rank, ends of epochs, and measurements of the quality."""

    batches: float
    epoch_ends: float
    measurements: float = 0


def limits_of(brain: Any, epoch: int) -> Limits:
    """The limits of a Brain at the start of an epoch.

    Arguments
    ---------
    brain : brainquant.training.brain.RunBrain
        Has begun to train.
    epoch : int
        The number of the epoch.
    """
    minutes, batches = brain.ckpt_interval_minutes, brain.ckpt_interval_steps
    saves = brain.checkpointer is not None
    total, quality = brain.train_sampler.total, getattr(brain, "quality", None)
    return Limits(
        steps=math.inf if brain.optimizer_step_limit is None else brain.optimizer_step_limit,
        epochs_left=max(getattr(brain.hparams.epoch_counter, "limit", math.inf) - epoch, 0),
        accumulation=brain.grad_accumulation_factor,
        turns=-(-total // brain.train_sampler.world_size),
        frozen_steps=getattr(brain.hparams, "freeze_steps", 0),
        valid_batches=brain.valid_batches,
        save_seconds=60 * minutes if saves and minutes > 0 else math.inf,
        save_batches=batches if saves and batches > 0 else math.inf,
        quality_steps=getattr(quality, "interval", math.inf),
        quality_step=getattr(quality, "last_step", 0),
    )


def work_left(limits: Limits, step: int, turns_left: float) -> Work:
    """What is left within an epoch, whose end is still to come.

    Later epochs are taken to have as many batches as this one.

    Arguments
    ---------
    limits : Limits
    step : int
        Optimiser steps that the run has made.
    turns_left : float
        Batches that are left of this epoch, on each rank.

    Example
    -------
    >>> limits = Limits(steps=25, epochs_left=9, turns=10)
    >>> work_left(limits, step=4, turns_left=6)  # 6 + 10 + 5 batches
    Work(batches=21, epoch_ends=3, measurements=0)
    """
    of_epoch = -(-limits.turns // limits.accumulation)
    here = -(-turns_left // limits.accumulation)
    steps = min(limits.steps - step, here + limits.epochs_left * of_epoch)
    if steps <= here:
        batches, ends = min(turns_left, max(steps, 0) * limits.accumulation), 1
    elif math.isinf(steps):
        batches = ends = math.inf
    else:
        full, rest = divmod(int(steps) - here, of_epoch)
        batches = turns_left + full * limits.turns + min(limits.turns, rest * limits.accumulation)
        ends = 1 + full + (rest > 0)
    if math.isinf(limits.quality_steps) or math.isinf(ends):
        return Work(batches, ends)
    # The n-th end comes after here + (n - 1) * of_epoch steps. The last one measures in any case.
    since = step - limits.quality_step
    first = max(1, 1 + math.ceil((limits.quality_steps - since - here) / of_epoch))
    if first >= ends:
        return Work(batches, ends, int(since + steps > 0))
    more, rest = divmod(ends - first, max(1, math.ceil(limits.quality_steps / of_epoch)))
    return Work(batches, ends, 1 + more + (rest > 0))


class TimeLeft:
    """Estimates the seconds until a training is done.

    They are the batches that are left, at the pace of the last ten minutes of training, and the
    validations, checkpoints and measurements that are left, at what they have cost so far. Each
    rank counts for itself and waits for nothing: neither for other ranks nor for the device, which
    is ahead of or behind the host by a batch or two. Nothing of it is in a checkpoint: a run that
    goes on measures its pace anew, perhaps on another machine.

    Attributes
    ----------
    seconds : float or None
        The estimate, renewed about once a second; None until it is known. The log has the first
        one.

    Example
    -------
    >>> now = 0.0
    >>> time_left = TimeLeft(clock=lambda: now)
    >>> time_left.start_epoch(Limits(steps=100, epochs_left=9, turns=100))
    >>> for batch in range(1, 41):
    ...     now += 2.0
    ...     time_left.count_batch(step=batch, turns_left=100 - batch)
    >>> str(time_left).split(" (")[0]
    '2 min left'
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.clock = clock or time.perf_counter
        self.seconds: float | None = None
        self.text = ""
        self.limits: Limits | None = None
        self.batches = 0  # that were counted, in all
        self.trained = 0.0  # seconds of them, without pauses
        self.marks: deque[tuple[float, int]] = deque()  # both, in the window
        self.pauses = {n: deque(maxlen=PAUSES_KEPT) for n in (EPOCH_END, CHECKPOINT, QUALITY)}
        self.last = 0.0  # when the last batch ended
        self.paused = 0.0  # seconds of pauses since then

    def start_epoch(self, limits: Limits) -> None:
        """Comes before the first batch of an epoch; what came after the last one was a pause."""
        now = self.clock()
        if self.limits is not None:
            self.pauses[EPOCH_END].append(max(now - self.last - self.paused, 0.0))
        self.limits, self.last, self.paused = limits, now, 0.0

    @contextmanager
    def pause(self, kind: str) -> Iterator[None]:
        """A pause of the training, of the kind ``CHECKPOINT`` or ``QUALITY``, or another one."""
        began, before = self.clock(), self.paused
        try:
            yield
        finally:
            taken = max(self.clock() - began, 0.0)
            # What is paused within it is of its own kind.
            own = max(taken - (self.paused - before), 0.0)
            self.pauses.setdefault(kind, deque(maxlen=PAUSES_KEPT)).append(own)
            self.paused = before + taken

    def count_batch(self, step: int, turns_left: float) -> None:
        """Comes after each batch; the arguments are those of ``work_left``."""
        if self.limits is None:  # a --debug run ends elsewhere
            return
        now = self.clock()
        taken = max(now - self.last - self.paused, 0.0)
        self.last, self.paused = now, 0.0
        self.batches += 1
        if self.batches <= WARMUP_BATCHES or step <= self.limits.frozen_steps:
            self.marks = deque([(self.trained, self.batches)])
            return
        self.trained += taken
        if turns_left and self.trained - self.marks[-1][0] < MARK_SECONDS:
            return
        self.marks.append((self.trained, self.batches))
        while len(self.marks) > 2 and self.trained - self.marks[1][0] >= WINDOW_SECONDS:
            self.marks.popleft()
        (since, batches), (trained, counted) = self.marks[0], self.marks[-1]
        if trained - since >= MIN_SECONDS and counted - batches >= MIN_BATCHES:
            pace = (trained - since) / (counted - batches)
            work = work_left(self.limits, step, turns_left)
            if math.isfinite(work.batches):
                self._show(self._estimate(work, pace, self.limits))

    def _show(self, seconds: float) -> None:
        is_first, self.seconds = self.seconds is None, seconds
        length, when = duration_text(seconds), moment_text(seconds)
        short = re.sub(r" on (\w{3})\w*", r" \1", when.removeprefix("at ").removeprefix("on "))
        self.text = f"{length} left ({short})"  # 3 h 10 min left (18:40), or (18:40 Wed)
        if is_first:
            logger.info(f"Training done in about {length}, {when}")

    def _estimate(self, work: Work, of_batch: float, limits: Limits) -> float:
        """Seconds of the work, of which a batch takes so many."""
        training = work.batches * of_batch
        guess = limits.valid_batches * of_batch * VALIDATION_SHARE
        saves = work.epoch_ends
        for interval, whole in (
            (limits.save_batches, limits.turns),
            (limits.save_seconds, limits.turns * of_batch),
        ):
            if interval < whole:  # both count from the start of an epoch
                saves += work.batches * whole // interval / limits.turns
        return (
            training
            + work.epoch_ends * self._cost(EPOCH_END, guess)
            + saves * self._cost(CHECKPOINT)
            + work.measurements * self._cost(QUALITY)
        )

    def _cost(self, kind: str, guess: float = 0.0) -> float:
        return statistics.median(self.pauses[kind]) if self.pauses[kind] else guess

    def __str__(self) -> str:
        """A short text for a progress bar; "" until the time is known."""
        return self.text
