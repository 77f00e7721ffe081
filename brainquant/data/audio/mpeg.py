"""MP3 files: how many samples they really have, counted frame by frame."""

import functools
from typing import BinaryIO, NamedTuple

from .kinds import id3_size

# kbit/s by (MPEG-1, layer) and the header's index
BIT_RATES = {
    (True, 1): range(0, 449, 32),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
SAMPLES = {(True, 1): 384, (True, 2): 1152, (True, 3): 1152, (False, 1): 384, (False, 2): 1152,
           (False, 3): 576}  # fmt: skip
BLOCK = 2**20  # bytes that are read at once
LONGEST_FREE = 8192  # bytes of a frame of free format, whose header gives no bit rate


class Frame(NamedTuple):
    """One frame, as its header describes it."""

    size: int  # bytes
    samples: int
    rate: int
    num_channels: int
    layer: int


class Frames(NamedTuple):
    """The frames of a file that have sound.

    Tags, frames that only announce others (Xing, Info, VBRI), a last frame that is cut, and garbage
    are not among them.
    """

    runs: list[tuple[int, int]]  # frames without gaps: first byte, number of bytes
    number: int
    formats: set[tuple[int, int, int, int]]  # samples per frame, rate, channels, layer
    first: int  # the first frame's header, 32 bits


def find_frames(file: BinaryIO) -> Frames:
    """Finds all frames of an MPEG audio file, whatever number it announces."""
    end = file.seek(0, 2)
    runs, count, formats, first, free = [], 0, set(), 0, 0
    block, base, position = b"", 0, 0
    while position + 4 <= end:
        if position + 10 > base + len(block):
            file.seek(position)
            block, base = file.read(BLOCK), position
        at = position - base
        head = int.from_bytes(block[at : at + 4], "big")
        if not free and _is_free(head):
            free = _free_size(file, position, head)
        frame = _frame(head, free)
        is_next = runs and sum(runs[-1]) == position
        if frame and not is_next and not _is_followed(file, position + frame.size, free, end):
            frame = None
        if not frame:
            position = _skip(block, base, position)
            continue
        size = frame.size
        if position + size > end:
            break
        if is_next or not _announces(file, position, size):
            if is_next:
                runs[-1] = (runs[-1][0], runs[-1][1] + size)
            else:
                runs.append((position, size))
            count += 1
            formats.add(frame[1:])
            first = first or head
        position += size
    return Frames(runs, count, formats, first)


def xing_frame(first: int, count: int) -> bytes:
    """A Xing frame: it gives the number of the frames after it, and has no sound itself.

    ``first`` is the header of the next frame.
    """
    # Like the next frame, but with another bit rate, without padding and without a checksum.
    head = first & ~0x0000_F200 | 0x0001_9000
    frame = _frame(head, 0)
    assert frame, "a header with this bit rate is valid"
    content = head.to_bytes(4, "big") + bytes(_side_info_size(head)) + b"Xing"
    content += (1).to_bytes(4, "big") + count.to_bytes(4, "big")
    return content.ljust(frame.size, b"\0")


@functools.lru_cache(4096)
def _frame(head: int, free: int) -> Frame | None:
    """The frame with this header, or None. A frame without a bit rate has ``free`` bytes."""
    version, layer = head >> 19 & 3, 4 - (head >> 17 & 3)
    index, rate = head >> 12 & 15, head >> 10 & 3
    if head >> 21 != 0x7FF or version == 1 or layer == 4 or index == 15 or rate == 3:
        return None
    if head & 3 == 2:  # a reserved value of emphasis
        return None
    rate, samples = RATES[version][rate], SAMPLES[version == 3, layer]
    slot, padding = (4 if layer == 1 else 1), head >> 9 & 1
    bits = 1000 * BIT_RATES[version == 3, layer][index]
    size = samples // 8 // slot * bits // rate if index else free
    if not size:
        return None
    size = (size + padding) * slot if index else size + padding * slot
    return Frame(size, samples, rate, 1 if head >> 6 & 3 == 3 else 2, layer)


def _is_free(head: int) -> bool:
    return head >> 21 == 0x7FF and head >> 12 & 15 == 0 and _frame(head, 1) is not None


def _free_size(file: BinaryIO, position: int, head: int) -> int:
    """The bytes of a frame of free format, without padding: up to the next similar header."""
    file.seek(position)
    content, like = file.read(LONGEST_FREE), (head & ~0x200).to_bytes(4, "big")
    found = min(
        (at for pad in (0, 2) if (at := content.find(like[:2] + bytes([like[2] | pad]), 4)) > 0),
        default=0,
    )
    return found - (head >> 9 & 1) if found else 0


def _is_followed(file: BinaryIO, position: int, free: int, end: int) -> bool:
    """Whether a frame or a tag, or the end of the file, is at the position."""
    if position + 4 > end:
        return True
    file.seek(position)
    after = file.read(4)
    is_tag = after[:3] in (b"TAG", b"ID3") or after == b"APET"
    return is_tag or _frame(int.from_bytes(after, "big"), free) is not None


def _announces(file: BinaryIO, position: int, size: int) -> bool:
    """Whether the frame at the position gives the number of frames, and has no sound."""
    file.seek(position)
    content = file.read(min(size, 200))
    side = _side_info_size(int.from_bytes(content[:4], "big"))
    return content[4 + side : 8 + side] in (b"Xing", b"Info") or content[36:40] == b"VBRI"


def _side_info_size(head: int) -> int:
    """The bytes between a frame's header and its sound; Xing writes its data after them."""
    mono = head >> 6 & 3 == 3
    return (17 if mono else 32) if head >> 19 & 3 == 3 else (9 if mono else 17)


def _skip(block: bytes, base: int, position: int) -> int:
    """The next position at which a frame may begin."""
    at = position - base
    if block[at : at + 3] == b"ID3" and max(block[at + 6 : at + 10], default=255) < 128:
        return position + id3_size(block[at : at + 10])
    if block[at : at + 3] == b"TAG":
        return position + 128
    found = [block.find(mark, at + 1) for mark in (b"\xff", b"ID3")]
    return base + min((where for where in found if where > 0), default=len(block))
