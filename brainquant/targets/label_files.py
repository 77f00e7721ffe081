"""Files of labels: where in the file those of a clip are, and how they are read.

Shape suffixes: T frames, G codebooks.
"""

from __future__ import annotations

import functools
import io
import json
import struct
import zipfile
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a member of a zip: signature, name, extra field
NPY_HEADER = 128  # bytes of the header of an .npy with one or two axes


class Entry(NamedTuple):
    """Where the labels of a clip are in their file."""

    id: str
    offset: int  # bytes
    size: int  # bytes
    frames: int


class LabelFile(Protocol):
    """A file of labels."""

    def __init__(self, path: str) -> None: ...

    def entries(self) -> Iterator[Entry]:
        """The clips of the file, one by one; a ValueError if it cannot be read."""
        ...

    def read(self, entry: Entry) -> np.ndarray:
        """The labels of a clip as int64, shape (frames, codebooks)."""
        ...


class NpzLabels:
    """An ``.npz``: an array for each ID, (frames,) or (frames, codebooks), not compressed.

    Example
    -------
    >>> path = str(getfixture("tmp_path") / "units.npz")
    >>> np.savez(path, a=np.array([7, 3]), b=np.array([[1, 2]]))
    >>> file = NpzLabels(path)
    >>> [(entry.id, entry.frames, file.read(entry).tolist()) for entry in file.entries()]
    [('a', 2, [[7], [3]]), ('b', 1, [[1, 2]])]
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def entries(self) -> Iterator[Entry]:
        try:
            with zipfile.ZipFile(self.path) as archive, open(self.path, "rb", 0) as file:
                for member in archive.infolist():
                    if member.compress_type != zipfile.ZIP_STORED:
                        raise ValueError("its arrays are compressed; write them with numpy.savez")
                    offset = _start_of_member(file, member.header_offset)
                    file.seek(offset)
                    frames = _count_frames(file.read(min(NPY_HEADER, member.file_size)))
                    name = member.filename.removesuffix(".npy")
                    yield Entry(name, offset, member.file_size, frames)
        except (OSError, ValueError, struct.error, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.path} cannot be read: {error}") from error

    def read(self, entry: Entry) -> np.ndarray:
        with open(self.path, "rb") as file:
            file.seek(entry.offset)
            content = io.BytesIO(file.read(entry.size))
        array_TG = np.lib.format.read_array(content, allow_pickle=False)
        return array_TG.reshape(len(array_TG), -1).astype(np.int64)


def _start_of_member(file: io.FileIO, header_offset: int) -> int:
    file.seek(header_offset)
    _, name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    return header_offset + LOCAL_HEADER.size + name + extra


@functools.lru_cache(maxsize=10_000)  # of the frames that clips have: the parser is slow
def _count_frames(header: bytes) -> int:
    """The frames of an array, from the header of its ``.npy``."""
    file = io.BytesIO(header)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
    if len(shape) not in (1, 2) or dtype.kind not in "iu":
        raise ValueError(
            f"an array of {dtype} of shape {shape} has no labels, which are integers of shape "
            f"(frames,) or (frames, codebooks)"
        )
    return shape[0]


class JsonLinesLabels:
    """Lines with ``id``, ``units`` and ``durations``; merged units are repeated again.

    Example
    -------
    >>> path = getfixture("tmp_path") / "units.jsonl"
    >>> _ = path.write_text('{"id": "a", "units": [7, 3], "durations": [1, 2]}\\n')
    >>> file = JsonLinesLabels(str(path))
    >>> [(entry.id, entry.frames, file.read(entry).tolist()) for entry in file.entries()]
    [('a', 3, [[7], [3], [3]])]
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def entries(self) -> Iterator[Entry]:
        with open(self.path, "rb") as file:
            offset = 0
            for number, line in enumerate(file, start=1):
                try:
                    row = json.loads(line)
                    frames = sum(row["durations"]) if "durations" in row else len(row["units"])
                    yield Entry(str(row["id"]), offset, len(line), frames)
                except (KeyError, TypeError, ValueError) as error:
                    raise ValueError(
                        f"{self.path}, line {number} is no object with id and units ({error}); "
                        f"make the file with brainquant tokens --format jsonl"
                    ) from error
                offset += len(line)

    def read(self, entry: Entry) -> np.ndarray:
        with open(self.path, "rb") as file:
            file.seek(entry.offset)
            row = json.loads(file.read(entry.size))
        units = np.asarray(row["units"], np.int64)
        return np.repeat(units.reshape(len(units), -1), row.get("durations", 1), axis=0)


FORMS: dict[str, type[LabelFile]] = {".npz": NpzLabels, ".jsonl": JsonLinesLabels}
