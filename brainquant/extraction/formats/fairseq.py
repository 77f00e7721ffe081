"""The files of fairseq's HuBERT: ``.npy`` with ``.len`` for features, ``.km`` for units.

The n-th line of each text file belongs to the n-th clip of the ``.tsv`` beside it: a line with the
root folder, then a line with the path and the samples of each clip.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from .files import Writer, as_units, without_ending

if TYPE_CHECKING:
    from ..clips import Clip

HEADER_BYTES = 128  # of an .npy file, enough for any length


class FairseqWriter(Writer):
    """Writes the manifest, a ``.tsv``, beside other files."""

    def __init__(self, path: str, meta: dict[str, Any], manifest: str) -> None:
        super().__init__(path, meta)
        self._manifest = self.open(manifest, "w")
        self._manifest.write(f"{os.path.abspath(meta['root'])}\n")

    @classmethod
    @override
    def check(cls, path: str, meta: dict[str, Any], clips: Iterable[Clip] = ()) -> None:
        for clip in clips:
            if re.search(r"[\t\r\n]|^\s|\s$", clip.path):
                raise ValueError(
                    f"{clip.path!r} cannot be in a manifest of fairseq: a tab, a line break, or a "
                    f"blank at its start or end; rename the file, or choose another --format"
                )
            if clip.start is not None or clip.channel is not None:
                raise ValueError(
                    f"the clip {clip.id!r} is a part of {clip.path}, and a manifest of fairseq has "
                    f"whole files only; write the clips to files, or choose another --format"
                )

    def add_to_manifest(self, clip: Clip) -> None:
        """Writes the line of a clip."""
        path = os.path.relpath(clip.path, self.meta["root"])
        self._manifest.write(f"{path}\t{clip.num_samples}\n")


class NpyWriter(FairseqWriter):
    """Writes the frames of all clips one after the other, and the frames of each clip.

    ``learn_kmeans.py`` and ``dump_km_label.py`` of fairseq read the files
    ``<split>_<rank>_<nshard>.npy`` and ``.len``; rank and nshard are 0 and 1 here. Pooled features
    are one frame for each clip.

    Example
    -------
    >>> from brainquant.extraction.clips import Clip
    >>> folder = getfixture("tmp_path")
    >>> writer = NpyWriter(f"{folder}/train.npy", {"kind": "encode", "root": "/data", "dim": 3})
    >>> for name, frames in (("a", 2), ("b", 1)):
    ...     clip = Clip(name, f"/data/{name}.wav", 16000, 16000)
    ...     writer.add(clip, np.ones((frames, 3), np.float32))
    >>> writer.close()
    >>> np.load(folder / "train_0_1.npy").shape, (folder / "train_0_1.len").read_text()
    ((3, 3), '2\\n1\\n')
    >>> (folder / "train.tsv").read_text()
    '/data\\na.wav\\t16000\\nb.wav\\t16000\\n'
    """

    endings = (".npy",)

    def __init__(self, path: str, meta: dict[str, Any]) -> None:
        manifest, arrays, lengths = self.paths(path)
        super().__init__(path, meta, manifest)
        self._arrays, self._lengths = self.open(arrays, "wb"), self.open(lengths, "w")
        self._num_frames, self._dtype = 0, np.dtype(np.float32)
        self._arrays.write(bytes(HEADER_BYTES))

    @classmethod
    @override
    def paths(cls, path: str) -> list[str]:
        stem = without_ending(path, *cls.endings).removesuffix("_0_1")
        return [f"{stem}.tsv", f"{stem}_0_1.npy", f"{stem}_0_1.len"]

    @override
    def add(self, clip: Clip, array: np.ndarray, durations: np.ndarray | None = None) -> None:
        frames = np.atleast_2d(array)
        self._arrays.write(np.ascontiguousarray(frames).tobytes())
        self._lengths.write(f"{len(frames)}\n")
        self._num_frames += len(frames)
        self._dtype = array.dtype
        self.add_to_manifest(clip)

    @override
    def finish(self) -> None:
        self._arrays.seek(0)
        write_header(self._arrays, self._dtype, (self._num_frames, self.meta["dim"]))


class KmWriter(FairseqWriter):
    """Writes the units of a clip as a line of numbers with blanks between them.

    ``dict.km.txt`` is fairseq's dictionary of all units. Durations have no place in this format.

    Example
    -------
    >>> from brainquant.extraction.clips import Clip
    >>> folder = getfixture("tmp_path")
    >>> meta = {"kind": "tokens", "root": "/data", "num_codes": 3, "num_codebooks": 1}
    >>> writer = KmWriter(f"{folder}/train.km", meta)
    >>> writer.add(Clip("a", "/data/a.wav", 16000, 16000), np.array([2, 2, 0]))
    >>> writer.close()
    >>> (folder / "train.km").read_text(), (folder / "dict.km.txt").read_text()
    ('2 2 0\\n', '0 1\\n1 1\\n2 1\\n')
    """

    endings = (".km",)

    def __init__(self, path: str, meta: dict[str, Any]) -> None:
        manifest, units = self.paths(path)
        super().__init__(path, meta, manifest)
        self._units = self.open(units, "w")
        dictionary, words = make_dictionary(path, meta["num_codes"])
        self.open(dictionary, "w").write(words)

    @classmethod
    @override
    def paths(cls, path: str) -> list[str]:
        stem = without_ending(path, *cls.endings)
        return [f"{stem}.tsv", f"{stem}.km"]  # the dictionary is that of all outputs of the folder

    @classmethod
    @override
    def check(cls, path: str, meta: dict[str, Any], clips: Iterable[Clip] = ()) -> None:
        if meta["num_codebooks"] > 1:
            raise ValueError(
                f"--format km holds one unit for each frame, and this model has "
                f"{meta['num_codebooks']} codebooks; choose jsonl, kaldi, parquet or npz"
            )
        super().check(path, meta, clips)
        refuse_other(*make_dictionary(path, meta["num_codes"]))

    @override
    def add(self, clip: Clip, array: np.ndarray, durations: np.ndarray | None = None) -> None:
        self._units.write(" ".join(map(str, as_units(array).tolist())) + "\n")
        self.add_to_manifest(clip)


def write_header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Writes the first ``HEADER_BYTES`` of an ``.npy`` file (version 1.0 of the format)."""
    fields = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    text = repr(fields).encode().ljust(HEADER_BYTES - 11) + b"\n"
    file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)


def make_dictionary(path: str, num_codes: int) -> tuple[str, str]:
    """The path and the text of the dictionary beside an output.

    Example
    -------
    >>> make_dictionary("units/train.km", 2)
    ('units/dict.km.txt', '0 1\\n1 1\\n')
    """
    words = "".join(f"{unit} 1\n" for unit in range(num_codes))
    return os.path.join(os.path.dirname(path), "dict.km.txt"), words


def refuse_other(path: str, text: str) -> None:
    """Raises a ValueError if there is a file with another text: other outputs need that one."""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            if file.read() != text:
                raise ValueError(
                    f"{path} is the dictionary of another number of units; give --output in "
                    f"another folder, or remove it with the files that need it"
                )
