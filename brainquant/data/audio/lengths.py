"""The true length of an audio file, whatever its header says: all of it is used, or nothing."""

import os
from typing import BinaryIO

from . import flac
from .containers import bytes_after_samples, ogg_lengths, wav_head_with_length
from .decoders import Header, NeedsMedia, read_sound_header
from .files import BadAudio, Piece
from .mpeg import find_frames, xing_frame

LONGEST = 2**62  # samples: libsndfile reports more for a header without a length
MORE = "has more after its announced end"
TOLERANCE = 0.1  # seconds that may follow the announced end
LEAST_MPEG = 4  # frames by which a count may differ: an encoder's delay and padding
WIDTHS = {  # bytes of a sample
    "PCM_S8": 1, "PCM_U8": 1, "ULAW": 1, "ALAW": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4,
    "FLOAT": 4, "DOUBLE": 8,
}  # fmt: skip
LARGEST_HEAD = 2**16  # bytes beside the samples, in a file whose parts are not known


def check_length(header: Header, kind: str, file: BinaryIO) -> Header:
    """Compares the length that libsndfile reports with the file.

    ``kind`` is the file's ``kind_of``. Returns the same header or, if the file gives no length or a
    wrong one, a header whose ``pieces`` have the right one. ``NeedsMedia`` means that libsndfile
    does not read to the end, and ffmpeg may; ``BadAudio`` that a part of the file would be lost.
    """
    if header.num_samples == 0 and kind == "WAV" and (head := wav_head_with_length(file)):
        return _with_head(head, header, file)
    if header.num_samples == 0:
        raise BadAudio("has no samples")
    if kind == "MP3":
        return _check_mpeg(header, file)
    if kind == "FLAC":
        return _check_flac(header, file)
    if kind == "Ogg" and len(ogg_lengths(file)) > 1:
        raise NeedsMedia(MORE)
    if _seconds_after_samples(header, file, kind) > TOLERANCE:
        raise BadAudio(f"{MORE}; convert it to FLAC")
    return header


def _check_mpeg(header: Header, file: BinaryIO) -> Header:
    frames = find_frames(file)
    if len(frames.formats) != 1:
        raise BadAudio("changes its rate or its channels in the middle; convert it to FLAC")
    samples, _, _, layer = frames.formats.pop()
    num_samples = frames.number * samples
    if abs(num_samples - header.num_samples) <= LEAST_MPEG * samples:
        return header
    if layer == 3:
        begin = _begin(header)
        runs = [(begin + first, size) for first, size in frames.runs]
        whole = read_sound_header(header.path, (xing_frame(frames.first, frames.number), *runs))
        if abs(num_samples - whole.num_samples) <= LEAST_MPEG * samples:
            return whole
    if num_samples < header.num_samples:
        raise BadAudio("has less than its header announces; convert it to FLAC")
    raise BadAudio(f"{MORE}; convert it to FLAC")


def _check_flac(header: Header, file: BinaryIO) -> Header:
    announced = header.num_samples if header.num_samples < LONGEST else None
    end = flac.last_sample(file, announced)
    if end is None:
        raise BadAudio("has no samples, only a header")
    if announced is None:
        return _with_head(flac.head_with_length(file, end), header, file)
    if end < announced:
        raise BadAudio(
            f"ends at sample {end} where its header says {announced}: it is cut, or more than one "
            f"file; copy it again, or convert it to FLAC"
        )
    largest = flac.largest_size(file, announced)
    is_too_large = largest is not None and file.seek(0, os.SEEK_END) > largest
    if is_too_large or end > announced + TOLERANCE * header.sample_rate:
        raise BadAudio(f"{MORE}; convert it to FLAC")
    return header


def _with_head(head: bytes, header: Header, file: BinaryIO) -> Header:
    """The header of the file after its first bytes are replaced by ``head``."""
    rest = (_begin(header) + len(head), file.seek(0, os.SEEK_END) - len(head))
    return read_sound_header(header.path, (head, rest))


def _begin(header: Header) -> int:
    """The first byte of the file in its path: not 0 if the path is a tar."""
    first: Piece = header.pieces[0] if header.pieces else (0, 0)
    assert isinstance(first, tuple), "libsndfile has read the file itself"
    return first[0]


def _seconds_after_samples(header: Header, file: BinaryIO, kind: str) -> float:
    """The time that the bytes after the samples would last if they were samples."""
    size, after = file.seek(0, os.SEEK_END), bytes_after_samples(file, kind)
    if kind in ("", "NIST") and header.subtype in WIDTHS:
        samples = header.num_samples * header.num_channels * WIDTHS[header.subtype]
        after = max(0, size - samples - LARGEST_HEAD)
    return after / (size - after) * header.num_samples / header.sample_rate
