"""``.npz``: a zip of NumPy arrays, one for each ID, for ``numpy.load``."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from .files import Writer, as_units

if TYPE_CHECKING:
    from ..clips import Clip


class NpzWriter(Writer):
    """Writes one array for each ID: features, or int32 units without their durations.

    The arrays are not compressed, so ``numpy.load`` reads one of them without the others.

    Example
    -------
    >>> from brainquant.extraction.clips import Clip
    >>> path = str(getfixture("tmp_path") / "f.npz")
    >>> writer = NpzWriter(path, {"kind": "encode"})
    >>> writer.add(Clip("a/é", "a.wav", 16000, 16000), np.ones((2, 3), np.float32))
    >>> writer.close()
    >>> np.load(path)["a/é"].tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    endings = (".npz",)

    def __init__(self, path: str, meta: dict[str, Any]) -> None:
        super().__init__(path, meta)
        self._zip = zipfile.ZipFile(self.open(path, "wb"), "w", zipfile.ZIP_STORED)

    @classmethod
    @override
    def check(cls, path: str, meta: dict[str, Any], clips: Iterable[Clip] = ()) -> None:
        for clip in clips:
            # numpy.load finds an array by its name with and without .npy.
            if "\0" in clip.id or clip.id.endswith(".npy"):
                raise ValueError(
                    f"the ID {clip.id!r} cannot be a name in an .npz file; change it in the "
                    f"manifest, or choose another --format"
                )

    @override
    def add(self, clip: Clip, array: np.ndarray, durations: np.ndarray | None = None) -> None:
        array = array if self.meta["kind"] == "encode" else as_units(array)
        entry = zipfile.ZipInfo(
            f"{clip.id}.npy"
        )  # dated 1980, so that equal arrays are equal files
        with self._zip.open(entry, "w", force_zip64=True) as file:
            np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)

    @override
    def finish(self) -> None:
        self._zip.close()
