"""WAV, AIFF, CAF, AU and Ogg files: data after the announced end, found without decoding."""

import os
import re
import struct
from typing import BinaryIO

PRINTABLE = re.compile(rb"[\x20-\x7e]{4}")
# The name of the chunk with the samples, the format of sizes, and the bytes before the chunks
CHUNKS = {"WAV": (b"data", "<I", 12), "AIFF": (b"SSND", ">I", 12), "CAF": (b"data", ">q", 8)}
FILE_NAMES = (b"RIFF", b"RF64", b"FORM", b"caff")  # the beginning of another file


def bytes_after_samples(file: BinaryIO, kind: str) -> int:
    """The number of bytes after the samples of a WAV, AIFF, CAF or AU file that form no chunk.

    0 for other kinds (see ``kind_of``), for bytes that are all zero (recorders reserve space with
    them), and for a file that does not give the size of its samples: it is read to its end.
    """
    end = file.seek(0, os.SEEK_END)
    if kind == "AU":
        file.seek(4)
        begin, size = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
        position = begin + size if size else end
    elif kind in CHUNKS:
        position = _end_of_chunks(file, end, *CHUNKS[kind])
    else:
        return 0
    file.seek(min(position, end))
    left = max(0, end - position)
    return left if any(file.read(2**20)) else 0


def _end_of_chunks(file: BinaryIO, end: int, wanted: bytes, size_format: str, position: int) -> int:
    width, long_size, seen = struct.calcsize(size_format), None, False
    while position + 4 + width <= end:
        file.seek(position)
        name, size = file.read(4), struct.unpack(size_format, file.read(width))[0]
        if not PRINTABLE.fullmatch(name) or name in FILE_NAMES or (seen and name == wanted):
            return position
        if name == b"ds64":  # sizes above 4 GB
            long_size = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))[0]
        begin = position + 4 + width
        if name == wanted:
            seen = True
            if size == 0xFFFFFFFF and long_size:
                size = long_size
            if size <= 0 or begin + size > end:
                return end
        elif begin + size > end and seen:
            return position
        position = begin + size + (size & 1 if width == 4 else 0)
    return end if position + 8 > end else position


def wav_head_with_length(file: BinaryIO) -> bytes | None:
    """The first bytes of a WAV file without a length, with the length filled in.

    None if the file has a length, or no samples.
    """
    file.seek(0)
    head = file.read(2**16)
    position = head.find(b"data\0\0\0\0")
    after = head[position + 8 : position + 12]
    if position < 0 or after in (b"", b"LIST", b"JUNK", b"id3 ", b"fact"):
        return None
    left = min(file.seek(0, os.SEEK_END) - position - 8, 0xFFFFFFFF)
    return head[: position + 4] + left.to_bytes(4, "little")


def ogg_lengths(file: BinaryIO) -> list[int]:
    """The number of samples of each stream in an Ogg file; for Opus, samples at 48 kHz.

    A file with several streams, one after the other, is a chain. Streams side by side, such as
    sound and text, all begin before the first page of content; only the first of them counts.
    """
    position, lengths, first, begun = 0, [], None, True
    end = file.seek(0, os.SEEK_END)
    while position + 27 <= end:
        file.seek(position)
        page = file.read(27 + 255)
        if page[:4] != b"OggS":
            position = _find(file, b"OggS", position + 1)
            continue
        begins, (granule, serial) = page[5] & 2, struct.unpack("<qI", page[6:18])
        if begins and begun:
            first = serial
            lengths.append(0)
        begun = not begins
        if serial == first and granule > 0:
            lengths[-1] = granule
        position += 27 + page[26] + sum(page[27 : 27 + page[26]])
    return lengths


def _find(file: BinaryIO, mark: bytes, position: int) -> int:
    """The next position of a mark in a file, or the file's end if there is none."""
    while True:
        file.seek(position)
        block = file.read(2**16)
        if (at := block.find(mark)) >= 0:
            return position + at
        if len(block) < len(mark):
            return position + len(block)
        position += len(block) - len(mark) + 1
