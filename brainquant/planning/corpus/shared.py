"""Training clips that have samples of validation clips, by what the manifests say."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

WHOLE = (0, float("inf"))  # of a file without start and stop


def shared_clips(
    train: Mapping[str, Mapping[str, Any]], valid: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """The IDs of a training clip and a validation clip that share samples of the same file.

    Each validation clip is named once at most.

    Example
    -------
    >>> train = {"a": {"wav": "1.wav", "start": 0, "stop": 200}, "b": {"wav": "2.wav"}}
    >>> valid = {"c": {"wav": "1.wav", "start": 150, "stop": 300}, "d": {"wav": "3.wav"}}
    >>> shared_clips(train, valid)
    [('a', 'c')]
    """
    files = {_file_of(row) for row in valid.values()}
    parts = defaultdict(list)
    for clip, row in train.items():
        if (file := _file_of(row)) in files:
            parts[file].append((*_bounds_of(row), clip))
    for found in parts.values():
        found.sort()
    pairs = []
    for clip, row in valid.items():
        start, stop = _bounds_of(row)
        if other := _first_overlap(parts.get(_file_of(row), ()), start, stop):
            pairs.append((other, clip))
    return pairs


def _file_of(row: Mapping[str, Any]) -> tuple:
    """What two clips must have in common: the file, in a tar its place there, and the channel."""
    return row["wav"], row.get("offset"), row.get("channel")


def _bounds_of(row: Mapping[str, Any]) -> tuple[float, float]:
    start = row.get("start")
    return WHOLE if start is None else (start, row["stop"])


def _first_overlap(parts: Iterable[tuple[float, float, str]], start: float, stop: float):
    for first, last, clip in parts:
        if first >= stop:
            return None
        if last > start:
            return clip
    return None
