"""Which clips of a manifest are in a dataset, which are left out by their length, and speakers.

Shape suffixes: N clips.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from speechbrain.dataio.dataset import DynamicItemDataset

from .columns import SPEAKER


class Speakers(NamedTuple):
    """The speakers of the clips of a dataset.

    Attributes
    ----------
    names : list of str
        Each speaker once.
    of_clip_N : numpy.ndarray
        For each clip, in the dataset's order, its speaker's place in ``names``; -1: unknown.
    """

    names: list[str]
    of_clip_N: np.ndarray


class Selection(NamedTuple):
    """What a dataset has taken from its manifest.

    Attributes
    ----------
    manifest : str
        The path of the manifest.
    min_seconds, max_seconds : float
        The lengths that were used; ``min_seconds`` may be above that of the YAML.
    seconds_N : numpy.ndarray
        The length of each clip of the dataset, in its order.
    short_N, long_N : numpy.ndarray
        The lengths of the clips that are left out, because they are too short or too long.
    longest_left_out : str
        The ID of the longest clip that is too long; "" if there is none.
    speakers : Speakers or None
        None if the manifest has no column of speakers.
    """

    manifest: str
    min_seconds: float
    max_seconds: float
    seconds_N: np.ndarray
    short_N: np.ndarray
    long_N: np.ndarray
    longest_left_out: str
    speakers: Speakers | None


class ClipDataset(DynamicItemDataset):
    """A dataset that knows its ``selection``."""

    selection: Selection


def select(
    manifest: str | os.PathLike,
    rows: Mapping[str, Mapping[str, Any]],
    min_seconds: float,
    max_seconds: float,
) -> tuple[Selection, dict[str, Mapping[str, Any]]]:
    """Takes the rows of a manifest whose ``duration`` is in a range.

    Example
    -------
    >>> rows = {str(n): {"duration": n, "spk_id": "a"} for n in (1, 2, 30, 40)}
    >>> selection, kept = select("train.csv", rows, 2, 30)
    >>> [*kept], selection.short_N.tolist(), selection.longest_left_out, selection.speakers.names
    (['2', '30'], [1.0], '40', ['a'])
    """
    seconds_N = np.fromiter((row["duration"] for row in rows.values()), float, len(rows))
    is_short_N, is_long_N = seconds_N < min_seconds, seconds_N > max_seconds
    is_kept_N = ~(is_short_N | is_long_N)
    kept = {name: row for (name, row), keep in zip(rows.items(), is_kept_N.tolist()) if keep}
    selection = Selection(
        os.fspath(manifest),
        min_seconds,
        max_seconds,
        seconds_N[is_kept_N],
        seconds_N[is_short_N],
        seconds_N[is_long_N],
        [*rows][int(seconds_N.argmax())] if is_long_N.any() else "",
        _speakers_of([*kept.values()]),
    )
    return selection, kept


def _speakers_of(rows: Sequence[Mapping[str, Any]]) -> Speakers | None:
    column = next((name for name in SPEAKER if rows and name in rows[0]), None)
    if column is None:
        return None
    numbers: dict[str, int] = {}
    of_clip = [
        numbers.setdefault(name, len(numbers)) if (name := row[column].strip()) else -1
        for row in rows
    ]
    return Speakers([*numbers], np.array(of_clip, np.int32))
