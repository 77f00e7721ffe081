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
    pairs : list of tuple of str
        The IDs of some pairs of copies.
    folders : list of str
        The two folders that the most copies are in; one, if both are the same.
    """

    share: float
    found: int
    shared: float
    shared_found: int
    pairs: list[tuple[str, str]]
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
    pairs = [(same[0], same[1]) for same in doubled] + shared
    folders = Counter(tuple(sorted({*map(_folder, pair)})) for pair in pairs)
    return Copies(
        estimated / max(read.total(), 1),
        found.total(),
        estimated_shared / max(len(valid), 1),
        len(shared),
        sorted((one.clip, other.clip) for one, other in pairs)[:SHOWN],
        list(folders.most_common(1)[0][0]) if folders else [],
    )


def _folder(reading: Reading) -> str:
    return os.path.dirname(reading.row["wav"])
