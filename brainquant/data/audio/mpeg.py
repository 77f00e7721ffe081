"""MP3 files: how many samples they hold, counted frame by frame."""

import functools

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


def count_frames(file):
    """Frames of an MPEG audio file, whatever it announces.

    Arguments
    ---------
    file : file of bytes

    Returns
    -------
    runs : list of (int, int)
        Where frames lie one behind the other: first byte, and how many bytes. Tags, frames that
        only announce (Xing, Info, VBRI), a last frame that is cut, and garbage are in none.
    num_frames : int
    headers : set of (int, int, int, int)
        What the frames are: samples per frame, samples per second, channels, layer.
    first : int
        The header of the first frame, of 32 bits.
    """
    end = file.seek(0, 2)
    runs, num_frames, headers, first, free = [], 0, set(), 0, 0
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
        if frame and not is_next and not _is_followed(file, position, frame[0], free, end):
            frame = None
        if not frame:
            position = _skip(file, block, base, position)
            continue
        size = frame[0]
        if position + size > end:
            break
        if is_next or not _announces(file, position, size):
            if is_next:
                runs[-1] = (runs[-1][0], runs[-1][1] + size)
            else:
                runs.append((position, size))
            num_frames += 1
            headers.add(frame[1:])
            first = first or head
        position += size
    return runs, num_frames, headers, first


def announcement(first, num_frames):
    """A Xing frame: it says how many frames follow, and holds no sound.

    Arguments
    ---------
    first : int
        The header of a frame that follows.
    num_frames : int

    Returns
    -------
    bytes
    """
    # As the frames that follow, of another bit rate, without padding and without a checksum.
    head = first & ~0x0000_F200 | 0x0001_9000
    size = _frame(head, 0)[0]
    content = head.to_bytes(4, "big") + bytes(_side(head)) + b"Xing"
    content += (1).to_bytes(4, "big") + num_frames.to_bytes(4, "big")
    return content.ljust(size, b"\0")


@functools.lru_cache(4096)
def _frame(head, free):
    """Bytes, samples, samples per second, channels and layer of a frame, or None."""
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
    return (
        (size + padding) * slot if index else size + padding * slot,
        samples,
        rate,
        (1 if head >> 6 & 3 == 3 else 2),
        layer,
    )


def _is_free(head):
    return head >> 21 == 0x7FF and head >> 12 & 15 == 0 and _frame(head, 1) is not None


def _free_size(file, position, head):
    """The bytes of a frame of free format, without padding: up to the next header like its own."""
    file.seek(position)
    content, like = file.read(LONGEST_FREE), (head & ~0x200).to_bytes(4, "big")
    found = min(
        (at for pad in (0, 2) if (at := content.find(like[:2] + bytes([like[2] | pad]), 4)) > 0),
        default=0,
    )
    return found - (head >> 9 & 1) if found else 0


def _is_followed(file, position, size, free, end):
    """Whether what seems to be a frame after a gap is one: it ends the file, or another follows."""
    if position + size + 4 > end:
        return True
    file.seek(position + size)
    after = file.read(4)
    return (
        after[:3] in (b"TAG", b"ID3")
        or after == b"APET"
        or bool(_frame(int.from_bytes(after, "big"), free))
    )


def _announces(file, position, size):
    file.seek(position)
    content = file.read(min(size, 200))
    side = _side(int.from_bytes(content[:4], "big"))
    return content[4 + side : 8 + side] in (b"Xing", b"Info") or content[36:40] == b"VBRI"


def _side(head):
    """The bytes between the header of a frame and its sound, where Xing writes its own."""
    mono = head >> 6 & 3 == 3
    return (17 if mono else 32) if head >> 19 & 3 == 3 else (9 if mono else 17)


def _skip(file, block, base, position):
    """The next place where a frame may begin."""
    at = position - base
    if block[at : at + 3] == b"ID3" and max(block[at + 6 : at + 10], default=255) < 128:
        return position + id3_size(block[at : at + 10])
    if block[at : at + 3] == b"TAG":
        return position + 128
    found = min(
        (where for mark in (b"\xff", b"ID3") if (where := block.find(mark, at + 1)) > 0),
        default=len(block),
    )
    return base + found
