"""What the manifests of a run say: hours, clips, lengths, what is left out, padding, speakers.

Shape suffixes: N clips.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ...data.own_speech.left_out import Preparation, read_preparation
from ...data.selection import Selection
from .padding import padding_of
from .shared import shared_clips


class Split(NamedTuple):
    """The clips of training or of validation.

    Attributes
    ----------
    clips : dict of str to dict
        The rows of the manifest by ID: ``wav``, ``duration`` and parts of files.
    selection : Selection
        What the manifest has besides.
    """

    clips: Mapping[str, Mapping[str, Any]]
    selection: Selection

    @property
    def seconds(self) -> float:
        """The seconds of all clips."""
        return float(self.selection.seconds_N.sum())


def split_of(loader: Any) -> Split:
    """The clips of a loader of ``brainquant.data.batches.make_loaders``."""
    dataset = loader.dataset.dataset  # inside ReadableClips
    return Split(dataset.data, dataset.selection)


class Lengths(NamedTuple):
    """The lengths of clips, in seconds."""

    shortest: float
    median: float
    below_95: float  # 95 % of the clips are not longer
    longest: float


class LeftOut(NamedTuple):
    """The clips of a manifest that are left out by their length."""

    clips: int  # of the manifest
    seconds: float
    short: int  # clips
    short_seconds: float
    long: int
    long_seconds: float
    longest: float  # seconds; 0 if no clip is too long


class SpeakerFacts(NamedTuple):
    """Who speaks in the clips of a split."""

    number: int  # 0: unknown
    largest: str
    largest_share: float  # of the seconds
    unknown_clips: int


def lengths_of(seconds_N: np.ndarray) -> Lengths:
    """The lengths of clips.

    Example
    -------
    >>> lengths_of(np.arange(101.0))
    Lengths(shortest=0.0, median=50.0, below_95=95.0, longest=100.0)
    """
    return Lengths(*np.percentile(seconds_N, [0, 50, 95, 100]).tolist())


def left_out_of(selection: Selection) -> LeftOut:
    """What the lengths of the YAML leave out."""
    short_N, long_N = selection.short_N, selection.long_N
    return LeftOut(
        clips=len(selection.seconds_N) + len(short_N) + len(long_N),
        seconds=float(selection.seconds_N.sum() + short_N.sum() + long_N.sum()),
        short=len(short_N),
        short_seconds=float(short_N.sum()),
        long=len(long_N),
        long_seconds=float(long_N.sum()),
        longest=float(long_N.max(initial=0.0)),
    )


def speakers_of(selection: Selection) -> SpeakerFacts:
    """The speakers of a split."""
    speakers = selection.speakers
    if not speakers or not speakers.names:
        return SpeakerFacts(0, "", 0.0, len(selection.seconds_N))
    is_known_N = speakers.of_clip_N >= 0
    seconds = np.bincount(speakers.of_clip_N[is_known_N], selection.seconds_N[is_known_N])
    largest = int(seconds.argmax())
    return SpeakerFacts(
        len(speakers.names),
        speakers.names[largest],
        float(seconds[largest] / selection.seconds_N.sum()),
        int((~is_known_N).sum()),
    )


def shared_speakers(train: Selection, valid: Selection) -> int:
    """The number of speakers of validation that are in training."""
    if not train.speakers or not valid.speakers:
        return 0
    return len({*train.speakers.names} & {*valid.speakers.names})


def largest_file(split: Split) -> tuple[str, float, float]:
    """The file with the most seconds of a split, these seconds, and the median of all files."""
    seconds: Counter[tuple[str, Any]] = Counter()
    for row in split.clips.values():
        seconds[row["wav"], row.get("offset")] += row["duration"]
    (wav, _), most = seconds.most_common(1)[0]
    return wav, most, float(np.median([*seconds.values()]))


class Listed(NamedTuple):
    """What the manifests of a run say."""

    train: Split
    valid: Split | None
    batches: int  # of an epoch of this rank
    padding: float
    shared_clips: list[tuple[str, str]]  # IDs in training and validation
    preparation: Preparation | None


def list_clips(hparams: Mapping[str, Any], train_loader: Any, valid_loader: Any) -> Listed:
    """Reads what the loaders of a run know of their manifests, and no audio."""
    train = split_of(train_loader)
    valid = split_of(valid_loader) if valid_loader is not None else None
    batches = list(train_loader.batch_sampler)
    return Listed(
        train,
        valid,
        len(batches),
        padding_of(batches, train.selection.seconds_N),
        shared_clips(train.clips, valid.clips) if valid else [],
        read_preparation(os.path.dirname(os.path.abspath(hparams["train_csv"]))),
    )
