"""Two decoders of audio: libsndfile, and ffmpeg's libraries for what libsndfile does not read.

The second decoder is PyAV, an extra. Its wheels contain ffmpeg's libraries; torchcodec needs those
of the system, and starting an ffmpeg process for each clip would cost more than decoding it.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from types import ModuleType
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import soundfile

from .files import BadAudio, Piece, open_file

if TYPE_CHECKING:
    import av
    import av.container

BLOCK = 2**20  # values that are decoded at once, of all channels together
MP3_LEAD_IN = 10 * 1152  # samples: ten frames of the largest size
SEEK_SECONDS = 1  # decoded before a segment, so that the decoder is in the state of a whole read
EXTRA = 'pip install "brainquant[codecs]"'
DType = Literal["int16", "int32", "float32"]


class Header(NamedTuple):
    """An audio file without its samples."""

    num_samples: int  # of each channel, at the file's own rate
    sample_rate: int
    num_channels: int
    format: str = ""  # as libsndfile or ffmpeg name it
    subtype: str = ""
    is_seekable: bool = True  # whether a segment can be read without decoding what is before it
    is_media: bool = False  # whether ffmpeg's libraries read it, not libsndfile
    path: str | os.PathLike = ""
    pieces: tuple[Piece, ...] | None = None  # of the path that are read; None: all of it


class NeedsMedia(BadAudio):
    """libsndfile does not read the file, or not to its end; ffmpeg's libraries may."""


class Sequential(soundfile.SoundFile):
    """A file that is read from its beginning to its end, without seeking.

    After each read of a seekable file, soundfile 0.14 seeks to the position that it already has.
    This breaks the next block of an MP3 file, and fails in a FLAC file without a length.
    """

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def open_sound(
    path: str | os.PathLike, pieces: Sequence[Piece] | None = None
) -> Iterator[soundfile.SoundFile]:
    """Opens a file in libsndfile; ``NeedsMedia`` if it is none of libsndfile's kinds."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_file(path, pieces)) if pieces is not None else path
        try:
            sound = stack.enter_context(Sequential(file))
        except TypeError:  # soundfile takes any file named .raw for one without a header
            raise BadAudio(
                "cannot be read (it is named .raw, which has no header); convert it to FLAC"
            ) from None
        except RuntimeError as error:
            raise NeedsMedia(_reason(error)) from None
        try:
            yield sound
        except RuntimeError as error:
            raise BadAudio(_reason(error)) from None


def _reason(error: RuntimeError) -> str:
    """libsndfile's reason, without the name before it, which may be a memory address."""
    return f"cannot be read ({str(getattr(error, 'error_string', error)).rstrip('.')})"


def read_sound_header(path: str | os.PathLike, pieces: tuple[Piece, ...] | None = None) -> Header:
    """What libsndfile says about a file."""
    with open_sound(path, pieces) as sound:
        return Header(
            sound.frames, sound.samplerate, sound.channels, sound.format, sound.subtype,
            is_seekable=soundfile.SoundFile.seekable(sound), path=path, pieces=pieces,
        )  # fmt: skip


def read_samples(
    header: Header, start: int, stop: int, dtype: DType = "float32"
) -> Iterator[np.ndarray]:
    """Decodes the samples from ``start`` to ``stop``, in blocks of shape (samples, channels).

    ffmpeg's blocks are always float32.
    """
    return (
        _read_media(header, start, stop)
        if header.is_media
        else _read_sound(header, start, stop, dtype)
    )


def _read_sound(header: Header, start: int, stop: int, dtype: DType) -> Iterator[np.ndarray]:
    with open_sound(header.path, header.pieces) as sound:
        # MP3 frames take bits from the frames before them. After a seek, libsndfile 1.2.2 returns
        # silence for what it cannot decode, up to a tenth of a second of speech.
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


def import_av() -> ModuleType | None:
    """PyAV, or None if the extra is not installed."""
    try:
        import av
    except ImportError:
        return None
    return av


@contextlib.contextmanager
def _open_media(
    path: str | os.PathLike, pieces: Sequence[Piece] | None
) -> Iterator[tuple["av.container.InputContainer", "av.AudioStream"]]:
    """Opens a file in ffmpeg's libraries, and its first audio stream."""
    av = import_av()
    if av is None:
        raise BadAudio(f"needs ffmpeg's libraries: {EXTRA}, or convert it to FLAC")
    try:
        with open_file(path, pieces) as file, av.open(file) as container:
            if not container.streams.audio:
                raise BadAudio("has no audio in it")
            yield container, container.streams.audio[0]
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadAudio(f"cannot be decoded ({reason})") from None


def read_media_header(path: str | os.PathLike, pieces: tuple[Piece, ...] | None = None) -> Header:
    """Decodes a whole file with ffmpeg's libraries to find out what it holds.

    The file is seekable if each of its frames says exactly which samples it has.
    """
    with _open_media(path, pieces) as (container, stream):
        count, formats, exact = 0, set(), stream.time_base == Fraction(1, stream.rate)
        for frame in container.decode(stream):
            exact = exact and frame.pts == count
            count += frame.samples
            formats.add((frame.sample_rate, frame.layout.nb_channels))
            if len(formats) > 1:
                raise BadAudio("changes its rate or its channels in the middle; convert it to FLAC")
        if not count:
            raise BadAudio("has no samples")
        rate, num_channels = formats.pop()
        format, codec = container.format.name.split(",")[0], stream.codec_context.name
    # In other formats ffmpeg seeks by bytes, which is not exact.
    is_seekable = exact and format in ("mov", "flac")
    return Header(count, rate, num_channels, format, codec, is_seekable, True, path, pieces)


def _read_media(header: Header, start: int, stop: int) -> Iterator[np.ndarray]:
    with _open_media(header.path, header.pieces) as (container, stream):
        position, seek = 0, max(0, start - SEEK_SECONDS * header.sample_rate)
        if header.is_seekable and seek:
            container.seek(seek, stream=stream)
        for frame in container.decode(stream):
            if header.is_seekable and frame.pts is not None:
                position = frame.pts
            block = _to_float(frame)
            first, last = max(0, start - position), min(len(block), stop - position)
            if first < last:
                yield block[first:last]
            position += len(block)
            if position >= stop:
                return


def _to_float(frame: "av.AudioFrame") -> np.ndarray:
    """The samples of a frame: float32 from -1 to 1, shape (samples, channels)."""
    samples = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1)
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
    samples = samples.astype(np.float64) - scale * (samples.dtype.kind == "u")
    return (samples / scale).astype(np.float32)
