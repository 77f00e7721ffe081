"""What lies behind the end that an audio file announces, found without decoding it."""

import functools
import os
import re
import struct

from .kinds import id3_size

TAIL = 2**18  # bytes at the end of a FLAC file that hold a frame, unless they hold none at all
LARGEST_TAG = 2**13  # bytes of names behind the last frame
PRINTABLE = re.compile(rb"[\x20-\x7e]{4}")
# The chunk of the samples, the byte order and the format of sizes, and the bytes before the chunks
CHUNKS = {"WAV": (b"data", "<I", 12), "AIFF": (b"SSND", ">I", 12), "CAF": (b"data", ">q", 8)}
WHOLES = (b"RIFF", b"RF64", b"FORM", b"caff")
BLOCK_SIZES = {1: 192, 2: 576, 3: 1152, 4: 2304, 5: 4608} | {n: 1 << n for n in range(8, 16)}


def bytes_behind(file, kind):
    """How many bytes lie behind the samples of a WAV, AIFF, CAF or AU file, and are no chunks.

    Arguments
    ---------
    file : file of bytes
    kind : str
        As ``kind_of`` names it. Of others the answer is 0.

    Returns
    -------
    num_bytes : int
        0 where the file does not say how many bytes its samples have: it is read to its end.
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
    return left if any(file.read(2**20)) else 0  # recorders reserve space with zeros


def _end_of_chunks(file, end, wanted, size_format, position):
    width, long_size, seen = struct.calcsize(size_format), None, False
    while position + 4 + width <= end:
        file.seek(position)
        name, size = file.read(4), struct.unpack(size_format, file.read(width))[0]
        if not PRINTABLE.fullmatch(name) or name in WHOLES or (seen and name == wanted):
            return position
        if name == b"ds64":  # the sizes of what is longer than 4 GB
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


def wav_with_length(file):
    """The first bytes of a WAV file without a length, with the length filled in.

    None where the file has a length, or no samples.
    """
    file.seek(0)
    head = file.read(2**16)
    place = head.find(b"data\0\0\0\0")
    if place < 0 or head[place + 8 : place + 12] in (b"", b"LIST", b"JUNK", b"id3 ", b"fact"):
        return None
    left = min(file.seek(0, os.SEEK_END) - place - 8, 0xFFFFFFFF)
    return head[: place + 4] + left.to_bytes(4, "little")


def ogg_lengths(file):
    """How many samples each of the streams has that follow one another in an Ogg file.

    Streams side by side, as of sound and text, all begin before the first page of content: the
    first of them counts.

    Returns
    -------
    list of int
        More than one where the file is a chain. Of Opus, samples at 48 kHz.
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


def _find(file, mark, position):
    """Where a mark is next in a file; its end where there is none."""
    while True:
        file.seek(position)
        block = file.read(2**16)
        if (at := block.find(mark)) >= 0:
            return position + at
        if len(block) < len(mark):
            return position + len(block)
        position += len(block) - len(mark) + 1


def flac_end(file, announced):
    """How many samples the frames of a FLAC file have, by the last of them.

    Arguments
    ---------
    file : file of bytes
    announced : int or None
        What its header says: a frame that agrees is believed to be the last.

    Returns
    -------
    num_samples : int or None
        None where no frame is found.
    """
    begin = _flac_header(file)
    file.seek(begin)
    info = file.read(42)
    block_size, largest = int.from_bytes(info[8:10], "big"), int.from_bytes(info[15:18], "big")
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
            # A frame begins where another ends; bytes that only look like a frame do not.
            if first in ends or first == 0:
                return last
    return None


def flac_room(file, num_samples):
    """How many bytes a FLAC file has at most, by the largest of its frames; None where it is not
    said. Files of one length behind one another have last frames that agree, and more bytes.
    """
    position = _flac_header(file) + 4
    file.seek(position)
    info = file.read(38)
    block_size, largest = int.from_bytes(info[4:6], "big"), int.from_bytes(info[11:14], "big")
    is_last = False
    while not is_last:
        file.seek(position)
        head = file.read(4)
        is_last = len(head) < 4 or head[0] & 128
        position += 4 + int.from_bytes(head[1:], "big")
    num_frames = -(-num_samples // max(1, block_size))
    return position + num_frames * largest + LARGEST_TAG if largest else None


def flac_with_length(file, num_samples):
    """The first bytes of a FLAC file, up to its number of samples, which is filled in."""
    begin = _flac_header(file)
    file.seek(0)
    content = bytearray(file.read(begin + 26))
    content[begin + 21] = content[begin + 21] & 0xF0 | num_samples >> 32
    content[begin + 22 :] = (num_samples & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(content)


def _flac_header(file):
    file.seek(0)
    head = file.read(10)
    return id3_size(head) if head[:3] == b"ID3" else 0


def _frames(content, block_size):
    """The first sample and the one after the last of frames with headers in here, last to first."""
    places = [found.start() for found in re.finditer(rb"\xff[\xf8\xf9]", content)]
    for place in reversed(places):
        if frame := _frame(content[place : place + 16], block_size):
            yield frame


def _frame(head, block_size):
    """The first sample and the one after the last of a frame, or None if it has another header."""
    if len(head) < 6 or head[3] & 1 or head[3] >> 4 > 10 or head[3] >> 1 & 7 == 3:
        return None
    code, rate_code = head[2] >> 4, head[2] & 15
    if code == 0 or rate_code == 15:
        return None
    # The number is coded as UTF-8 codes a character, of up to 36 bits.
    ones = 8 - (head[4] ^ 0xFF).bit_length()
    if ones == 1 or ones > 7:
        return None
    number, place = head[4] & 0x7F >> ones, 5
    for byte in head[place : place + max(0, ones - 1)]:
        if byte >> 6 != 2:
            return None
        number, place = number << 6 | byte & 63, place + 1
    extra = {6: 1, 7: 2}.get(code, 0)
    length = BLOCK_SIZES.get(code) or int.from_bytes(head[place : place + extra], "big") + 1
    place += extra + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if place >= len(head) or _crc8(head[:place]) != head[place]:
        return None
    first = number if head[1] & 1 else number * block_size
    return first, first + length


def _crc8(content):
    crc = 0
    for byte in content:
        crc = _crc_table()[crc ^ byte]
    return crc


@functools.cache
def _crc_table():
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = (crc << 1 ^ 7 if crc & 128 else crc << 1) & 255
        table.append(crc)
    return table
