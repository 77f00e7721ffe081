"""FLAC files: how many samples they really have, found without decoding them."""

import os
import re
from collections.abc import Iterator
from typing import BinaryIO

from .kinds import id3_size

TAIL = 2**18  # bytes at the end of a FLAC file: they hold a frame, unless the file has none
LARGEST_TAG = 2**13  # bytes of names after the last frame
BLOCK_SIZES = {1: 192, 2: 576, 3: 1152, 4: 2304, 5: 4608} | {n: 1 << n for n in range(8, 16)}


def last_sample(file: BinaryIO, announced: int | None) -> int | None:
    """The number of samples of a FLAC file by its last frame; None if no frame is found.

    ``announced`` is the number in the file's header: a frame that ends there is taken as the last.
    """
    begin, block_size, largest = _stream_info(file)
    end = file.seek(0, os.SEEK_END)
    tails = [max(2 * largest + 1024, 2**14), TAIL] if largest else [TAIL]
    for tail in tails:
        file.seek(max(begin + 42, end - tail))
        frames = []
        for frame in _frames(file.read(tail), block_size):
            if frame[1] == announced:
                return announced
            frames.append(frame)
        ends = {last for _, last in frames}
        for first, last in frames:
            # A frame begins where another ends. Bytes that only look like a frame do not.
            if first in ends or first == 0:
                return last
    return None


def largest_size(file: BinaryIO, num_samples: int) -> int | None:
    """The largest possible size of a FLAC file in bytes; None if its header gives no frame size.

    A file that is larger is several files in one. If these have equal lengths, their last frames
    agree with the header, and only the size shows it.
    """
    begin, block_size, largest = _stream_info(file)
    position, is_last = begin + 4, False
    while not is_last:
        file.seek(position)
        head = file.read(4)
        is_last = len(head) < 4 or bool(head[0] & 128)
        position += 4 + int.from_bytes(head[1:], "big")
    num_frames = -(-num_samples // max(1, block_size))
    return position + num_frames * largest + LARGEST_TAG if largest else None


def head_with_length(file: BinaryIO, num_samples: int) -> bytes:
    """The first bytes of a FLAC file, up to its number of samples, which is filled in."""
    begin, _, _ = _stream_info(file)
    file.seek(0)
    content = bytearray(file.read(begin + 26))
    content[begin + 21] = content[begin + 21] & 0xF0 | num_samples >> 32
    content[begin + 22 :] = (num_samples & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(content)


def _stream_info(file: BinaryIO) -> tuple[int, int, int]:
    """The header's position, the samples per frame, and the bytes of the largest frame or 0."""
    file.seek(0)
    head = file.read(42)
    begin = id3_size(head) if head[:3] == b"ID3" else 0
    if begin:
        file.seek(begin)
        head = file.read(42)
    return begin, int.from_bytes(head[8:10], "big"), int.from_bytes(head[15:18], "big")


def _frames(content: bytes, block_size: int) -> Iterator[tuple[int, int]]:
    """The frames whose headers are in these bytes, last to first; see ``_frame``."""
    positions = [found.start() for found in re.finditer(rb"\xff[\xf8\xf9]", content)]
    for position in reversed(positions):
        if frame := _frame(content[position : position + 16], block_size):
            yield frame


def _frame(head: bytes, block_size: int) -> tuple[int, int] | None:
    """The first sample of a frame and the one after its last; None if this is no frame header."""
    if len(head) < 6 or head[3] & 1 or head[3] >> 4 > 10 or head[3] >> 1 & 7 == 3:
        return None
    code, rate_code = head[2] >> 4, head[2] & 15
    if code == 0 or rate_code == 15:
        return None
    # The number is coded as UTF-8 codes a character, with up to 36 bits.
    ones = 8 - (head[4] ^ 0xFF).bit_length()
    if ones == 1 or ones > 7:
        return None
    number, position = head[4] & 0x7F >> ones, 5
    for byte in head[5 : 5 + max(0, ones - 1)]:
        if byte >> 6 != 2:
            return None
        number, position = number << 6 | byte & 63, position + 1
    extra = {6: 1, 7: 2}.get(code, 0)
    length = BLOCK_SIZES.get(code) or int.from_bytes(head[position : position + extra], "big") + 1
    position += extra + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if position >= len(head) or _crc8(head[:position]) != head[position]:
        return None
    first = number if head[1] & 1 else number * block_size
    return first, first + length


def _crc8(content: bytes) -> int:
    crc = 0
    for byte in content:
        crc = CRC_TABLE[crc ^ byte]
    return crc


def _crc_table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [(crc << 1 ^ 7 if crc & 128 else crc << 1) & 255 for crc in table]
    return table


CRC_TABLE = _crc_table()
