"""Kaldi's archives: ``.ark`` and ``.scp``, with ``utt2num_frames`` and ``frame_shift``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from .files import Writer, as_durations, as_units, without_ending
from .libraries import import_kaldiio

if TYPE_CHECKING:
    from ..clips import Clip


class KaldiWriter(Writer):
    """Writes an archive, and the index that names the place of each ID in it.

    Features are float32 matrices, and vectors if they are pooled; Kaldi has no float16. Units are
    int32 vectors. Kaldi has no integer matrices, so the units of several codebooks are float32
    matrices, (frames, codebooks). ``utt2num_frames`` counts the frames before equal neighbours were
    merged. The index has the absolute path of the archive, as Kaldi's own scripts write it.

    Example
    -------
    >>> import kaldiio
    >>> from brainquant.extraction.clips import Clip
    >>> folder = getfixture("tmp_path")
    >>> meta = {"kind": "encode", "frame_shift": 0.04, "pooled": False}
    >>> writer = KaldiWriter(f"{folder}/feats.scp", meta)
    >>> writer.add(Clip("a", "a.wav", 16000, 16000), np.ones((2, 3), np.float32))
    >>> writer.close()
    >>> kaldiio.load_scp(f"{folder}/feats.scp")["a"].shape
    (2, 3)
    >>> (folder / "utt2num_frames").read_text(), (folder / "frame_shift").read_text()
    ('a 2\\n', '0.04\\n')
    """

    endings = (".ark", ".scp")

    def __init__(self, path: str, meta: dict[str, Any]) -> None:
        self._kaldiio: ModuleType = import_kaldiio()
        super().__init__(path, meta)
        archive, index, counts, shift = self.paths(path)
        self._archive_path = os.path.abspath(archive)
        self._archive = self.open(archive, "wb")
        self._index = self.open(index, "w")
        self._counts = None
        if not meta.get("pooled"):
            self._counts = self.open(counts, "w")
            self.open(shift, "w").write(f"{meta['frame_shift']:g}\n")

    @classmethod
    @override
    def paths(cls, path: str) -> list[str]:
        stem, folder = without_ending(path, *cls.endings), os.path.dirname(path)
        beside = [os.path.join(folder, name) for name in ("utt2num_frames", "frame_shift")]
        return [f"{stem}.ark", f"{stem}.scp", *beside]

    @classmethod
    @override
    def check(cls, path: str, meta: dict[str, Any], clips: Iterable[Clip] = ()) -> None:
        import_kaldiio()
        if meta.get("half"):
            raise ValueError("--half: archives of Kaldi have no float16; choose another --format")
        for clip in clips:
            if len(clip.id.split()) != 1 or clip.id.strip() != clip.id:
                raise ValueError(
                    f"the ID {clip.id!r} has blanks, and IDs of Kaldi have none; change it in the "
                    f"manifest, or choose another --format"
                )

    @override
    def add(self, clip: Clip, array: np.ndarray, durations: np.ndarray | None = None) -> None:
        if self.meta["kind"] == "tokens":
            array = as_units(array)
            num_frames = int(as_durations(durations, len(array)).sum())
            array = array.astype(np.float32) if array.ndim == 2 else array
        else:
            num_frames, array = len(array), array.astype(np.float32)
        place = self._archive.tell() + len(f"{clip.id} ".encode())
        self._kaldiio.save_ark(self._archive, {clip.id: array})
        self._index.write(f"{clip.id} {self._archive_path}:{place}\n")
        if self._counts:
            self._counts.write(f"{clip.id} {num_frames}\n")
