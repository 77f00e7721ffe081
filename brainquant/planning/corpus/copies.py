"""Clips that have the same samples as another clip, estimated from a sample."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from typing import NamedTuple

from .sample import Reading, Sample

SHOWN = 5  # pairs that are kept as examples


class Copies(NamedTuple):
    """Copies among the clips that were read.

    Attributes
    ----------
    share : float
        The estimated share of training clips that have the samples of another training clip.
    found : int
        Those of them that were found.
    shared : float
        The estimated share of validation clips that have the samples of a training clip.
    shared_found : int
        Those of them that were found.
    pairs, shared_pairs : list of tuple of str
        The IDs of some copies in training, and of some in training and validation.
    is_estimate : bool
        Whether the shares are estimated, because not all clips were read.
    folders : list of str
        The two folders that have the most copies of training clips; one, if both are the same.
    """

    share: float
    found: int
    shared: float
    shared_found: int
    pairs: list[tuple[str, str]]
    shared_pairs: list[tuple[str, str]]
    is_estimate: bool
    folders: list[str]


def find_copies(sample: Sample) -> Copies:
    """Finds clips of the same samples. Digital silence does not count.

    A copy has the length of its original. If not all clips of a length were read, the share is
    estimated: of n clips of N, a clip's only copy is among them with the probability
    (n - 1) / (N - 1).
    """
    train: dict[bytes, list[Reading]] = defaultdict(list)
    valid: list[Reading] = []
    for reading in sample.readings:
        if not reading.sound or reading.sound.is_silent:
            continue
        if reading.split == 0:
            train[reading.sound.content].append(reading)
        else:
            valid.append(reading)
    doubled = [found for found in train.values() if len(found) > 1]
    shared = [
        (train[content][0], reading)
        for reading in valid
        if reading.sound and (content := reading.sound.content) in train
    ]
    read = Counter(found.group for same in train.values() for found in same)
    found = Counter(reading.group for same in doubled for reading in same)
    of_train = sample.group_sizes[0]
    estimated = sum(
        min(read[group], number * (int(of_train[group]) - 1) / (read[group] - 1))
        if read[group] > 1
        else number
        for group, number in found.items()
    )
    of_valid = Counter(reading.group for reading in valid)
    in_train = Counter(reading.group for _, reading in shared)
    estimated_shared = sum(
        min(of_valid[group], number * int(of_train[group]) / max(read[group], 1))
        for group, number in in_train.items()
    )
    pairs = [(same[0], same[1]) for same in doubled]
    folders = Counter(_folders(one.row["wav"], other.row["wav"]) for one, other in pairs)
    return Copies(
        estimated / max(read.total(), 1),
        found.total(),
        estimated_shared / max(len(valid), 1),
        len(shared),
        _examples(pairs),
        _examples(shared),
        len(sample.readings) < sum(int(sizes.sum()) for sizes in sample.group_sizes),
        list(folders.most_common(1)[0][0]) if folders else [],
    )


def _examples(pairs: list[tuple[Reading, Reading]]) -> list[tuple[str, str]]:
    return sorted((one.clip, other.clip) for one, other in pairs)[:SHOWN]


def _folders(wav: str, other: str) -> tuple[str, ...]:
    """The folders that two files are in, without what is the same at their ends.

    Example
    -------
    >>> _folders("/data/new/anna/a.wav", "/data/old/anna/a.wav")
    ('/data/new', '/data/old')
    """
    folders = [os.path.dirname(path) for path in sorted((wav, other))]
    while folders[0] != folders[1] and os.path.basename(folders[0]) == os.path.basename(folders[1]):
        folders = [os.path.dirname(folder) for folder in folders]
    return tuple(dict.fromkeys(folders))
