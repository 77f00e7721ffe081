"""Audio files as bytes: opened, or one clear reason why not."""

import bisect
import io
import itertools
import os
import stat


class BadAudio(ValueError):
    """An audio file that cannot be trained on; the text names the file and says why."""


class Pieces(io.RawIOBase):
    """Parts of a file, and bytes between them, as one file: nothing is held in memory.

    Arguments
    ---------
    path : str
    pieces : sequence of bytes or (int, int)
        What comes after what: bytes, or the first byte of a part of the file and how many it has.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.tar"
    >>> _ = path.write_bytes(b"0123456789")
    >>> with Pieces(path, [b"ab", (3, 4)]) as file:
    ...     file.read(), file.seek(1), file.read()
    (b'ab3456', 1, b'b3456')
    """

    def __init__(self, path, pieces):
        super().__init__()
        self.pieces = pieces
        sizes = (len(piece) if isinstance(piece, bytes) else piece[1] for piece in pieces)
        self.starts = [0, *itertools.accumulate(sizes)]
        self.position = 0
        self.file = open(path, "rb", buffering=0)

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=os.SEEK_SET):
        base = (0, self.position, self.starts[-1])[whence]
        self.position = max(0, base + offset)
        return self.position

    def readinto(self, buffer):
        index = bisect.bisect_right(self.starts, self.position) - 1
        if index >= len(self.pieces):
            return 0
        piece, skipped = self.pieces[index], self.position - self.starts[index]
        length = min(len(buffer), self.starts[index + 1] - self.position)
        if isinstance(piece, bytes):
            content = piece[skipped : skipped + length]
        else:
            self.file.seek(piece[0] + skipped)
            content = self.file.read(length)
        buffer[: len(content)] = content
        self.position += len(content)
        return len(content)

    def close(self):
        if not self.closed:
            self.file.close()
        super().close()


def open_file(path, offset=None, size=None, pieces=None):
    """A file, or the one inside a tar, to be read as bytes; ``BadAudio`` where it is none.

    Arguments
    ---------
    path : str
    offset, size : int or None
        Bytes of the tar. None: the path is no tar.
    pieces : sequence or None
        What is read of it, see ``Pieces``. None: all.

    Returns
    -------
    file : io.BufferedReader
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):
            raise BadAudio(f"is a link to {os.readlink(path)}, which is not there") from None
        raise BadAudio("cannot be read: there is no such file") from None
    except (OSError, ValueError) as error:  # ValueError: of a name with a zero byte
        raise BadAudio(f"cannot be read ({getattr(error, 'strerror', error)})") from None
    if not stat.S_ISREG(status.st_mode):
        what = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe"}.get(stat.S_IFMT(status.st_mode))
        raise BadAudio(f"cannot be read (it is {what or 'a device'}, not a file)")
    if offset is not None and status.st_size < offset + size:
        raise BadAudio(f"ends at byte {status.st_size}")
    if status.st_size == 0:
        raise BadAudio("cannot be read (it has no bytes)")
    if pieces is None and offset is not None:
        pieces = [(offset, size)]
    try:
        return io.BufferedReader(Pieces(path, pieces), 2**16) if pieces else open(path, "rb")
    except OSError as error:
        raise BadAudio(f"cannot be read ({error.strerror})") from None


def read_bytes(path, offset=None, size=None):
    """The bytes of a whole file, or of a clip inside a tar; ``BadAudio`` where they are not there.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.tar"
    >>> _ = path.write_bytes(b"0123456789")
    >>> read_bytes(path, 3, 4)
    b'3456'
    """
    with open_file(path, offset, size) as file:
        return file.read()
