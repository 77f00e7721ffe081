"""Labels of frames in files, by the ID of the clip: what ``brainquant tokens`` writes.

Memory holds about 20 bytes for each clip, whatever its length; labels are read when a batch needs
them.

Shape suffixes: N clips, T frames, G codebooks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .label_files import FORMS, Entry


class Found(NamedTuple):
    """Which clips have labels, in the order of the IDs that were asked for."""

    rows_N: np.ndarray  # of the index; -1 for a clip without labels
    frames_N: np.ndarray  # labelled frames; 0 without labels


class Labels:
    """The labels of all clips of some files.

    Arguments
    ---------
    paths : sequence of str
        Files of one of the forms in ``FORMS``.

    Raises
    ------
    ValueError
        If a file cannot be read, or a clip has labels twice.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.files = [FORMS[os.path.splitext(path)[1]](path) for path in paths]
        keys, entries = [], []
        for file in self.files:
            found = np.fromiter(_rows(file.entries()), _ROW)
            keys.append(found["key"])
            entries.append(found[["offset", "size", "frames"]])
        file_of = np.repeat(np.arange(len(keys), dtype=np.int16), [len(part) for part in keys])
        key_N = np.concatenate(keys)
        order_N = np.argsort(key_N, kind="stable")
        self._key_N = key_N[order_N]
        self._file_N = file_of[order_N]
        self._entry_N = np.concatenate(entries)[order_N]
        twice = np.flatnonzero(self._key_N[1:] == self._key_N[:-1])
        if len(twice):
            one, other = (paths[int(self._file_N[twice[0] + n])] for n in (0, 1))
            raise ValueError(
                f"{len(twice)} clips have labels twice, the first in {one} and in {other}; take "
                f"one of the files away"
            )

    def __len__(self) -> int:
        return len(self._key_N)

    def find(self, ids: Iterable[str]) -> Found:
        """Where the labels of clips are."""
        key_N = np.fromiter(map(_key, ids), np.uint64)
        rows_N = np.searchsorted(self._key_N, key_N)
        known_N = rows_N < len(self)
        known_N[known_N] = self._key_N[rows_N[known_N]] == key_N[known_N]
        rows_N = np.where(known_N, rows_N, -1)
        frames_N = np.where(known_N, self._entry_N["frames"][rows_N], 0) if len(self) else rows_N
        return Found(rows_N, frames_N)

    def read(self, row: int) -> np.ndarray:
        """The labels of a clip, shape (frames, codebooks)."""
        offset, size, frames = self._entry_N[row].item()
        return self.files[int(self._file_N[row])].read(Entry("", offset, size, frames))


_ROW = np.dtype([
    ("key", np.uint64), ("offset", np.int64), ("size", np.int32), ("frames", np.int32),
])  # fmt: skip


def _key(clip_id: str) -> int:
    """Eight bytes in the place of an ID."""
    text = clip_id.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _rows(entries: Iterable[Entry]) -> Iterator[tuple[int, int, int, int]]:
    for entry in entries:
        yield _key(entry.id), entry.offset, entry.size, entry.frames
