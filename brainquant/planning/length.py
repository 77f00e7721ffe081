"""How many steps a run makes, and what an epoch of it holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class Length(NamedTuple):
    """The length of a run of one process.

    Attributes
    ----------
    steps : int
        Optimiser steps of the whole run.
    ended_by : str
        The key that ends it: ``optimizer_step_limit`` or ``number_of_epochs``.
    steps_of_epoch, batches_of_epoch : int
        Steps and batches of an epoch.
    speech_of_epoch, padded_of_epoch : float
        Seconds of an epoch, without and with padding.
    """

    steps: int
    ended_by: str
    steps_of_epoch: int
    batches_of_epoch: int
    speech_of_epoch: float
    padded_of_epoch: float

    @property
    def passes(self) -> float:
        """How often the run sees the corpus."""
        return self.steps / self.steps_of_epoch

    @property
    def speech_of_step(self) -> float:
        """Seconds of speech in a step, on average."""
        return self.speech_of_epoch / self.steps_of_epoch


def run_length(brain: Any, hparams: dict[str, Any], train_loader: Any) -> Length:
    """The length of the run that a Brain would make.

    Arguments
    ---------
    brain : RunBrain
        Has the options in force.
    hparams : dict
        Has the ``epoch_counter``.
    train_loader : torch.utils.data.DataLoader
        Of ``make_loaders``.
    """
    lengths = clip_seconds(train_loader)
    batches = [[lengths[clip] for clip in batch] for batch in train_loader.batch_sampler]
    return length_of(
        batches,
        accumulation=brain.grad_accumulation_factor,
        epochs=getattr(hparams["epoch_counter"], "limit", None) or math.inf,
        limit=brain.optimizer_step_limit or math.inf,
    )


def length_of(
    batches: Iterable[Sequence[float]], *, accumulation: int, epochs: float, limit: float
) -> Length:
    """The length of a run, from the clips' seconds in the batches of an epoch.

    Raises
    ------
    ValueError
        If neither limit is finite.

    Example
    -------
    >>> length = length_of([[3.0, 4.0], [1.0], [2.0]], accumulation=2, epochs=10, limit=15)
    >>> length.steps, length.ended_by, length.passes, length.padded_of_epoch
    (15, 'optimizer_step_limit', 7.5, 11.0)
    >>> length_of([[3.0]], accumulation=1, epochs=10, limit=15).ended_by
    'number_of_epochs'
    """
    batches = [batch for batch in batches if batch]
    steps_of_epoch = -(-len(batches) // accumulation)
    by_epochs = epochs * steps_of_epoch
    if math.isinf(steps := min(limit, by_epochs)):
        raise ValueError("nothing ends this run; set optimizer_step_limit: in your YAML")
    return Length(
        steps=int(steps),
        ended_by="number_of_epochs" if by_epochs < limit else "optimizer_step_limit",
        steps_of_epoch=steps_of_epoch,
        batches_of_epoch=len(batches),
        speech_of_epoch=sum(map(sum, batches)),
        padded_of_epoch=sum(len(batch) * max(batch) for batch in batches),
    )


def clip_seconds(loader: Any) -> list[float]:
    """The seconds of a loader's clips, by their index."""
    dataset = loader.dataset
    return [float(dataset.data[name]["duration"]) for name in dataset.data_ids]
