"""The largest batches that the sampler of a recipe makes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..data.batches import make_batches

EPOCHS = 3  # a clip that is in a batch of few clips in one epoch, is in a full one in another


class BatchShape(NamedTuple):
    """The size of a batch.

    Attributes
    ----------
    clips : int
        The number of clips, all padded to the longest.
    longest_seconds : float
        The longest clip.
    """

    clips: int
    longest_seconds: float

    @property
    def padded_seconds(self) -> float:
        """Seconds with padding."""
        return self.clips * self.longest_seconds


def batch_shapes(dataset: Any, hparams: Mapping[str, Any]) -> list[BatchShape]:
    """The largest batches, for each number of clips the one with the longest clip.

    SpeechBrain's sampler puts clips of similar length into a bucket, and the batches of a bucket
    have as many clips. So the longest clip of a bucket comes with that many others, in an epoch or
    in another.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        The training clips.
    hparams : dict
        ``batch_seconds``, ``batch_clips``, ``num_buckets`` and ``seed``.

    Example
    -------
    >>> from speechbrain.dataio.dataset import DynamicItemDataset
    >>> data = {str(n): {"duration": seconds} for n, seconds in enumerate([1.0, 9.0, 3.0, 2.0])}
    >>> keys = {"batch_seconds": 8, "batch_clips": 2, "num_buckets": 4, "seed": 1}
    >>> batch_shapes(DynamicItemDataset(data), keys)
    [BatchShape(clips=2, longest_seconds=9.0)]
    """
    longest: dict[int, float] = {}
    for batch in epochs_of(dataset, hparams, EPOCHS):
        seconds = max(durations_of(dataset, batch))
        longest[len(batch)] = max(seconds, longest.get(len(batch), 0.0))
    return [BatchShape(clips, longest[clips]) for clips in sorted(longest)]


def epochs_of(dataset: Any, hparams: Mapping[str, Any], epochs: int) -> list[list[int]]:
    """The batches of the first epochs of a run, as indices of clips."""
    sampler: Any = make_batches(dataset, hparams, shuffle=True)
    batches: list[list[int]] = []
    for epoch in range(1, epochs + 1):
        getattr(sampler, "sampler", sampler).set_epoch(epoch)
        # islice: at its end, SpeechBrain's sampler would make all batches again.
        batches += itertools.islice(sampler, len(sampler))
    return batches


def durations_of(dataset: Any, batch: Sequence[int]) -> list[float]:
    """Seconds of the clips of a batch."""
    return [float(dataset.data[dataset.data_ids[clip]]["duration"]) for clip in batch]
