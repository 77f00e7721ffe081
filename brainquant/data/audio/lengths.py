"""How long an audio file is, whatever its header says: all of it is used, or none."""

import os

from .containers import (
    bytes_behind,
    flac_end,
    flac_room,
    flac_with_length,
    ogg_lengths,
    wav_with_length,
)
from .decoders import NeedsMedia, header_of, open_sound
from .files import BadAudio
from .mpeg import announcement, count_frames

LONGEST = 2**62  # samples: libsndfile gives more for a header without a length
MORE = "has more behind its announced end"
TOLERANCE = 0.1  # seconds that may lie behind the announced end
LEAST_MPEG = 4  # frames by which a count may differ: an encoder's delay and padding
WIDTHS = {  # bytes of a sample
    "PCM_S8": 1, "PCM_U8": 1, "ULAW": 1, "ALAW": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4,
    "FLOAT": 4, "DOUBLE": 8,
}  # fmt: skip
LARGEST_HEAD = 2**16  # bytes before and behind the samples of a file whose parts are not known


def whole_header(header, kind, file, path, begin):
    """A header that has all of the file's samples, of one that libsndfile has read.

    Arguments
    ---------
    header : Header
    kind : str
        As ``kind_of`` names it.
    file : file of bytes
    path : str
    begin : int
        The file's first byte in the path, where this is a tar.

    Returns
    -------
    Header

    Raises
    ------
    NeedsMedia
        Where libsndfile does not read on to the end, and ffmpeg does.
    BadAudio
        Where a part of the file would be lost.
    """
    if header.num_samples == 0 and kind == "WAV" and (head := wav_with_length(file)):
        return _with_head(head, file, path, begin)
    if header.num_samples == 0:
        raise BadAudio("has no samples")
    if kind == "MP3":
        return _whole_mpeg(header, file, path, begin)
    if kind == "FLAC":
        return _whole_flac(header, file, path, begin)
    if kind == "Ogg" and len(ogg_lengths(file)) > 1:
        raise NeedsMedia(MORE)
    if _seconds_behind(header, file, kind) > TOLERANCE:
        raise BadAudio(f"{MORE}; convert it to FLAC")
    return header


def _whole_mpeg(header, file, path, begin):
    """The header of an MP3 file by its frames; one with a wrong length gets a Xing frame."""
    runs, count, kinds, first = count_frames(file)
    if len(kinds) != 1:
        raise BadAudio("changes its rate or its channels in the middle; convert it to FLAC")
    samples, _, _, layer = kinds.pop()
    if abs(count * samples - header.num_samples) <= LEAST_MPEG * samples:
        return header
    if layer == 3:
        pieces = (announcement(first, count), *((begin + place, size) for place, size in runs))
        with open_sound(path, pieces=pieces) as sound:
            whole = header_of(sound, pieces)
        if abs(count * samples - whole.num_samples) <= LEAST_MPEG * samples:
            return whole
    if count * samples < header.num_samples:
        raise BadAudio("has less than it announces; convert it to FLAC")
    raise BadAudio(f"{MORE}; convert it to FLAC")


def _whole_flac(header, file, path, begin):
    """The header of a FLAC file by its last frame; a length is put into one that has none."""
    announced = header.num_samples if header.num_samples < LONGEST else None
    end = flac_end(file, announced)
    if end is None:
        raise BadAudio("has no samples, only a header")
    if announced is None:
        return _with_head(flac_with_length(file, end), file, path, begin)
    if end < announced:
        raise BadAudio(
            f"ends at sample {end} where its header says {announced}: it is cut, or more than one "
            f"file; copy it again, or convert it to FLAC"
        )
    room = flac_room(file, announced)
    too_large = room is not None and file.seek(0, os.SEEK_END) > room
    if too_large or end > announced + TOLERANCE * header.sample_rate:
        raise BadAudio(f"{MORE}; convert it to FLAC")
    return header


def _with_head(head, file, path, begin):
    """The header of a file that has these first bytes instead of its own."""
    pieces = (head, (begin + len(head), file.seek(0, os.SEEK_END) - len(head)))
    with open_sound(path, pieces=pieces) as sound:
        return header_of(sound, pieces)


def _seconds_behind(header, file, kind):
    """What follows the samples of a WAV file and its like, as if it were samples."""
    size, behind = file.seek(0, os.SEEK_END), bytes_behind(file, kind)
    if kind in ("", "NIST") and header.subtype in WIDTHS:
        samples = header.num_samples * header.num_channels * WIDTHS[header.subtype]
        behind = max(0, size - samples - LARGEST_HEAD)
    return behind / (size - behind) * header.num_samples / header.sample_rate
