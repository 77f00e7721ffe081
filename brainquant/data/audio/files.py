"""The bytes of audio files: opened, or refused with one clear reason."""

import bisect
import io
import itertools
import os
import stat
from collections.abc import Sequence
from typing import BinaryIO

from typing_extensions import Buffer

Piece = bytes | tuple[int, int]  # bytes, or the first byte of a part of the file and its size


class BadAudio(ValueError):
    """Audio that cannot be used. The text gives the reason; ``AudioReader`` adds the clip."""


class Pieces(io.RawIOBase):
    """Parts of a file, and bytes of our own, read as one file. Nothing is held in memory.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.tar"
    >>> _ = path.write_bytes(b"0123456789")
    >>> with Pieces(path, [b"ab", (3, 4)]) as file:
    ...     file.read(), file.seek(1), file.read()
    (b'ab3456', 1, b'b3456')
    """

    def __init__(self, path: str | os.PathLike, pieces: Sequence[Piece]):
        super().__init__()
        self.pieces = pieces
        sizes = (len(piece) if isinstance(piece, bytes) else piece[1] for piece in pieces)
        self.starts = [0, *itertools.accumulate(sizes)]
        self.position = 0
        self.file = open(path, "rb", buffering=0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = (0, self.position, self.starts[-1])[whence]
        self.position = max(0, base + offset)
        return self.position

    def readinto(self, buffer: Buffer) -> int:
        index = bisect.bisect_right(self.starts, self.position) - 1
        if index >= len(self.pieces):
            return 0
        view = memoryview(buffer)
        piece, skipped = self.pieces[index], self.position - self.starts[index]
        length = min(len(view), self.starts[index + 1] - self.position)
        if isinstance(piece, bytes):
            content = piece[skipped : skipped + length]
        else:
            self.file.seek(piece[0] + skipped)
            content = self.file.read(length)
        view[: len(content)] = content
        self.position += len(content)
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


def pieces_of(offset: int | None, size: int | None) -> tuple[Piece, ...] | None:
    """The pieces of a file inside a tar; None if the path is the file itself."""
    return None if offset is None or size is None else ((offset, size),)


def open_file(path: str | os.PathLike, pieces: Sequence[Piece] | None = None) -> BinaryIO:
    """Opens a file, or the ``Pieces`` of it, for reading bytes; ``BadAudio`` if that fails."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):
            raise BadAudio(f"is a link to {os.readlink(path)}, which does not exist") from None
        raise BadAudio("cannot be read: there is no such file") from None
    except (OSError, ValueError) as error:  # ValueError: the name has a zero byte
        raise BadAudio(f"cannot be read ({getattr(error, 'strerror', error)})") from None
    if not stat.S_ISREG(status.st_mode):
        what = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe"}.get(stat.S_IFMT(status.st_mode))
        raise BadAudio(f"cannot be read (it is {what or 'a device'}, not a file)")
    if any(sum(piece) > status.st_size for piece in pieces or () if isinstance(piece, tuple)):
        raise BadAudio(f"ends at byte {status.st_size}")
    if status.st_size == 0:
        raise BadAudio("cannot be read (it has no bytes)")
    try:
        return io.BufferedReader(Pieces(path, pieces), 2**16) if pieces else open(path, "rb")
    except OSError as error:
        raise BadAudio(f"cannot be read ({error.strerror})") from None


def read_bytes(
    path: str | os.PathLike, offset: int | None = None, size: int | None = None
) -> bytes:
    """The bytes of a whole file, or of a file inside a tar; ``BadAudio`` if it cannot be read.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.tar"
    >>> _ = path.write_bytes(b"0123456789")
    >>> read_bytes(path, 3, 4)
    b'3456'
    """
    with open_file(path, pieces_of(offset, size)) as file:
        return file.read()
