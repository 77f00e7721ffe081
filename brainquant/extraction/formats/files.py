"""What the writers of all formats have in common."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..clips import Clip


class Writer:
    """Writes the arrays of a corpus into one file, or into a few files that belong together.

    The arrays are streamed: memory does not grow with them. All files are written into a hidden
    folder beside the output, and ``close`` moves them to their names. So a file that has its name
    is whole. The bytes depend on the arrays, the clips and ``path`` only, not on the time.

    Arguments
    ---------
    path : str
        The output, as the user names it.
    meta : dict
        What belongs to all clips. Every writer reads ``kind``, "encode" or "tokens"; some read
        ``dim``, ``pooled``, ``num_codes``, ``num_codebooks``, ``frame_shift`` or ``root``.

    Attributes
    ----------
    files : list of str
        The paths of all files that ``close`` writes.
    endings : tuple of str
        Those of a path for this format; a path may have none.

    Raises
    ------
    ValueError
        If the format cannot hold what ``meta`` describes.
    """

    endings: tuple[str, ...] = ()

    def __init__(self, path: str, meta: dict[str, Any]) -> None:
        self.check(path, meta)
        self.path, self.meta = path, meta
        self.files: list[str] = []
        self._opened: list[tuple[IO[Any], str]] = []
        folder, name = os.path.split(path)
        self._unfinished = os.path.join(folder, f".{name}.unfinished")
        shutil.rmtree(self._unfinished, ignore_errors=True)  # of a program that was killed
        os.makedirs(self._unfinished)

    @classmethod
    def check(cls, path: str, meta: dict[str, Any], clips: Iterable[Clip] = ()) -> None:
        """Raises a ValueError if the format cannot hold such arrays, or one of the clips.

        Arguments
        ---------
        path, meta : object
            As for the writer itself.
        clips : iterable of Clip
            The clips that will be added.
        """

    @classmethod
    def paths(cls, path: str) -> list[str]:
        """The files that belong to an output of this name alone: ``close`` replaces them."""
        return [path]

    def add(self, clip: Clip, array: np.ndarray, durations: np.ndarray | None = None) -> None:
        """Adds the array of the next clip.

        Arguments
        ---------
        clip : Clip
            Its ``id``, ``path`` and ``num_samples``.
        array : numpy.ndarray
            Features of shape (frames, dim), or (dim,) if they are pooled; or units of shape
            (frames,), or (frames, codebooks) if there are several codebooks.
        durations : numpy.ndarray or None
            For each unit the frames that it stands for; None: one each.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Writes what follows the last array; a subclass may need it."""

    def close(self) -> None:
        """Finishes all files and gives them their names."""
        self.finish()
        for file, _ in self._opened:
            file.close()
        for file, final in self._opened:
            os.replace(file.name, final)
        os.rmdir(self._unfinished)

    def open(self, final: str, mode: str) -> IO[Any]:
        """Opens a file that ``close`` will move to the path ``final``; text becomes UTF-8."""
        path = os.path.join(self._unfinished, os.path.basename(final))
        encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
        file = open(path, mode, encoding=encoding, newline=newline)
        self.files.append(final)
        self._opened.append((file, final))
        return file


def without_ending(path: str, *endings: str) -> str:
    """A path without its ending, if that is one of some.

    Example
    -------
    >>> without_ending("a/b.ark", ".ark", ".scp"), without_ending("a/b.v2", ".ark", ".scp")
    ('a/b', 'a/b.v2')
    """
    root, ending = os.path.splitext(path)
    return root if ending in endings else path


def as_units(array: np.ndarray) -> np.ndarray:
    """Units as int32; a single codebook has no axis of its own.

    Example
    -------
    >>> as_units(np.array([[3], [4]])).tolist()
    [3, 4]
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    return array.astype(np.int32)


def as_durations(durations: np.ndarray | None, num_units: int) -> np.ndarray:
    """Frames of each unit as int32: ones if nothing was merged."""
    return np.ones(num_units, np.int32) if durations is None else durations.astype(np.int32)
