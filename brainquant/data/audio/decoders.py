"""Two decoders of audio: libsndfile, and ffmpeg's libraries for what that does not read.

The second one is PyAV, an extra: its wheels bring their libraries with them, where torchcodec needs
those of a system's ffmpeg, and a process of ffmpeg for each clip would cost more than the decoding.
"""

import contextlib
from typing import NamedTuple

import numpy as np
import soundfile

from .files import BadAudio, open_file

BLOCK = 2**20  # values that are decoded at once, of all channels together
MP3_LEAD_IN = 10 * 1152  # samples: frames of the largest size
SEEK_SECONDS = 1  # decoded before a segment, so that the decoder is in the state of a whole read
EXTRA = 'pip install "brainquant[codecs]"'


class Header(NamedTuple):
    """What is known of an audio file without its samples.

    Arguments
    ---------
    num_samples : int
        Of each channel, at the file's own rate: all that the file has.
    sample_rate : int
    num_channels : int
    format, subtype : str
        As libsndfile or ffmpeg name them.
    is_seekable : bool
        Whether a segment can be read without decoding what is before it.
    pieces : tuple or None
        What libsndfile reads instead of the file, see ``Pieces``.
    is_media : bool
        Whether ffmpeg's libraries read it, and not libsndfile.
    """

    num_samples: int
    sample_rate: int
    num_channels: int
    format: str = ""
    subtype: str = ""
    is_seekable: bool = True
    pieces: tuple | None = None
    is_media: bool = False


class NeedsMedia(BadAudio):
    """libsndfile does not read the file, or not to its end; ffmpeg's libraries may."""


class Sequential(soundfile.SoundFile):
    """A file that is read from its beginning to its end, without seeking.

    After each read of a seekable file soundfile 0.14 seeks to the position that it has anyway. That
    breaks the next block of an MP3 file, and fails in a FLAC file without a length.
    """

    def seekable(self):
        return False


@contextlib.contextmanager
def open_sound(path, offset=None, size=None, pieces=None):
    """A file in libsndfile; ``NeedsMedia`` with its reason where it is none of its kinds."""
    with contextlib.ExitStack() as stack:
        if offset is not None or pieces is not None:
            path = stack.enter_context(open_file(path, offset, size, pieces))
        try:
            sound = stack.enter_context(Sequential(path))
        except TypeError:  # soundfile goes by this name alone
            raise BadAudio(
                "cannot be read (it is named .raw, which has no header); convert it to FLAC"
            ) from None
        except RuntimeError as error:
            raise NeedsMedia(_reason(error)) from None
        try:
            yield sound
        except RuntimeError as error:
            raise BadAudio(_reason(error)) from None


def _reason(error):
    """libsndfile's reason without the name before it, which may be a memory address."""
    return f"cannot be read ({str(getattr(error, 'error_string', error)).rstrip('.')})"


def header_of(sound, pieces=None):
    """A header as libsndfile has it."""
    return Header(
        sound.frames, sound.samplerate, sound.channels, sound.format, sound.subtype,
        soundfile.SoundFile.seekable(sound), pieces,
    )  # fmt: skip


def read_sound(path, header, start, stop, offset=None, size=None, *, dtype="float32"):
    """Samples of a clip by libsndfile.

    Yields
    ------
    numpy.ndarray
        Of the dtype, shape (samples, channels), one block after the other.
    """
    with open_sound(path, offset, size, header.pieces) as sound:
        # The frames of MP3 take bits from those before them: libsndfile 1.2.2 gives silence for
        # what it cannot decode after a seek, up to a tenth of a second of speech.
        lead = min(start, MP3_LEAD_IN) if header.subtype.startswith("MPEG_LAYER") else 0
        if not header.is_seekable:
            lead = start
        elif start:
            sound.seek(start - lead)
        length = max(1, BLOCK // header.num_channels)
        left = lead + stop - start
        while left:
            block = sound.read(min(length, left), dtype=dtype, always_2d=True)
            if not len(block):
                return
            left -= len(block)
            if lead < len(block):
                yield block[lead:]
            lead -= min(lead, len(block))


def import_av():
    """PyAV, or None where the extra is not installed."""
    try:
        import av
    except ImportError:
        return None
    return av


@contextlib.contextmanager
def open_media(path, offset=None, size=None):
    """A file in ffmpeg's libraries, and its first stream of audio."""
    av = import_av()
    if av is None:
        raise BadAudio(f"needs ffmpeg's libraries: {EXTRA}, or convert it to FLAC")
    try:
        with open_file(path, offset, size) as file, av.open(file) as container:
            if not container.streams.audio:
                raise BadAudio("has no audio in it")
            yield container, container.streams.audio[0]
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadAudio(f"cannot be decoded ({reason})") from None


def count_media(path, offset=None, size=None):
    """What a file holds by ffmpeg's libraries: all of it is decoded, and nothing is kept.

    Returns
    -------
    Header
        Seekable where each frame says exactly which samples it has.
    """
    with open_media(path, offset, size) as (container, stream):
        count, kinds, exact = 0, set(), stream.time_base * stream.rate == 1
        for frame in container.decode(stream):
            exact = exact and frame.pts == count
            count += frame.samples
            kinds.add((frame.sample_rate, frame.layout.nb_channels))
            if len(kinds) > 1:
                raise BadAudio("changes its rate or its channels in the middle; convert it to FLAC")
        if not count:
            raise BadAudio("has no samples")
        rate, num_channels = kinds.pop()
        format, codec = container.format.name.split(",")[0], stream.codec_context.name
    # In other formats ffmpeg seeks by bytes, which is not exact.
    is_seekable = exact and format in ("mov", "flac")
    return Header(count, rate, num_channels, format, codec, is_seekable, is_media=True)


def read_media(path, header, start, stop, offset=None, size=None):
    """Samples of a clip by ffmpeg's libraries, as ``read_sound`` yields them."""
    with open_media(path, offset, size) as (container, stream):
        position, seek = 0, max(0, start - SEEK_SECONDS * header.sample_rate)
        if header.is_seekable and seek:
            container.seek(seek, stream=stream)
            position = None
        for frame in container.decode(stream):
            position = frame.pts if position is None else position
            block = to_float(frame)
            first, last = max(0, start - position), min(len(block), stop - position)
            if first < last:
                yield block[first:last]
            position += len(block)
            if position >= stop:
                return


def to_float(frame):
    """The samples of a frame of PyAV, float32 of shape (samples, channels), as numbers up to 1."""
    samples = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1)
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
    return ((samples.astype(np.float64) - scale * (samples.dtype.kind == "u")) / scale).astype(
        np.float32
    )
