"""The place of a run: its optimiser steps, and the batches of its epoch."""

import math

from ..data.batches import RankBatchSampler
from ..ranks import rank, world_size


class Place:
    """Where a run is in its training.

    Batches are counted over all ranks, so a run can go on with another number of ranks. All random
    draws are seeded from the place, so a checkpoint needs no state of loaders or generators.

    Arguments
    ---------
    accumulation : int
        Batches of a step on each rank.

    Attributes
    ----------
    optimizer_step : int
        Steps of the whole run.
    batches_done : int
        Batches of this epoch that all ranks have taken.
    resumed : bool
        Whether a checkpoint from the middle of this epoch was loaded.
    turns : int or float
        Batches that this rank takes in the rest of the epoch.

    Example
    -------
    >>> from speechbrain.dataio.sampler import ReproducibleRandomSampler
    >>> from torch.utils.data import BatchSampler
    >>> batches = BatchSampler(ReproducibleRandomSampler(range(3)), 1, drop_last=False)
    >>> place = Place(accumulation=2)
    >>> place.start_epoch(RankBatchSampler(batches), epoch=1)
    >>> [place.ends_step(turn) for turn in (1, 2, 3)]
    [False, True, True]
    >>> place.share_of_step(1), place.share_of_step(3)
    (0.5, 1.0)
    """

    def __init__(self, accumulation: int = 1) -> None:
        self.accumulation = accumulation
        self.optimizer_step = 0
        self.batches_done = 0
        self.resumed = False
        self.sampler: RankBatchSampler | None = None  # of the training batches
        self.turns = math.inf

    def start_epoch(self, sampler: RankBatchSampler, epoch: int) -> None:
        """Sets the sampler to the beginning of an epoch, or to where a checkpoint has left it."""
        if not self.resumed:
            self.batches_done = 0
        sampler.set_epoch(epoch)
        sampler.start = self.batches_done
        self.sampler = sampler
        self.turns = len(sampler)

    def batch_number(self, turn: int) -> int:
        """Number of this rank's batch in the epoch, from 0, counted over ranks.

        Arguments
        ---------
        turn : int
            Batches that this rank has begun since the epoch or the process started.
        """
        return self._sampler.start + (turn - 1) * world_size() + rank()

    def ends_step(self, turn: int) -> bool:
        """Whether the optimiser makes its step after this batch."""
        return turn % self.accumulation == 0 or turn == self.turns

    def share_of_step(self, turn: int) -> float:
        """The factor of a batch's loss that makes a step's gradient the mean over its batches.

        The last step of an epoch may have fewer batches than the others. (SpeechBrain 1.1.2 drops
        the batches after the last full accumulation.)
        """
        in_step = world_size() * self.accumulation
        first = (turn - 1) // self.accumulation * in_step
        left = self._sampler.total - self._sampler.start - first
        return world_size() / min(in_step, left)

    def count_batch(self, turn: int) -> None:
        """Counts the batches that all ranks have taken after this turn."""
        self.batches_done = min(self._sampler.start + turn * world_size(), self._sampler.total)

    def state_dict(self) -> dict:
        """The counts, for a checkpoint."""
        return {"optimizer_step": self.optimizer_step, "batches_done": self.batches_done}

    def load_state_dict(self, state: dict) -> None:
        """Takes the counts of ``state_dict``; a ValueError if one is no count."""
        for name in ("optimizer_step", "batches_done"):
            check_count(name, state[name])
            setattr(self, name, state[name])

    def forget_epoch(self) -> None:
        """Goes back to the beginning of the epoch."""
        self.batches_done = 0

    @property
    def _sampler(self) -> RankBatchSampler:
        assert self.sampler is not None, "start_epoch comes first"
        return self.sampler


def check_count(name: str, value: object) -> None:
    """Raises a ValueError if a value of a checkpoint is not a count.

    Example
    -------
    >>> check_count("optimizer_step", "many")
    Traceback (most recent call last):
    ValueError: optimizer_step is 'many', not a count
    """
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} is {value!r}, not a count")
