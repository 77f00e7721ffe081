"""What an audio file holds, and whether a clip of it can be used: only this file decides."""

import functools
import os

from .containers import bytes_after_samples, ogg_lengths
from .decoders import EXTRA, Header, NeedsMedia, import_av, read_media_header, read_sound_header
from .files import BadAudio, Piece, open_file, pieces_of
from .kinds import KINDS, describe, kind_of
from .lengths import MORE, TOLERANCE, check_length

MIX_DOWNS = (False, "mean", "first", "each")  # how several channels become one
RATES = range(1_000, 768_001)  # Hz: speech has no other rate
SHORTEST = 0.01  # seconds: if a clip seems shorter, its start and stop are not in samples
KEPT = 2**15  # headers that a process keeps, for the next clip of a file or the next epoch


def read_header(
    path: str | os.PathLike, offset: int | None = None, size: int | None = None
) -> Header:
    """Reads the header of an audio file, and refuses a file with more audio than its header gives.

    The length in the header is checked: MP3 frames are counted, an Ogg file is searched for further
    streams, a WAV file for data after its samples, and the last frame of a FLAC file is parsed. A
    file that only ffmpeg's libraries read is decoded completely.

    With ``offset`` and ``size``, the file is these bytes of the tar ``path``. ``BadAudio`` gives
    only the reason: it is not audio, has no samples, or its length is wrong.

    Example
    -------
    >>> import soundfile
    >>> path = str(getfixture("tmp_path") / "a.flac")
    >>> soundfile.write(path, [0.0] * 8000, 16000)
    >>> read_header(path)[:3]
    (8000, 16000, 1)
    """
    try:
        status = os.stat(path)
        state = status.st_size, status.st_mtime_ns
    except (OSError, ValueError):
        state = None
    return _read(path, pieces_of(offset, size), state)


@functools.lru_cache(KEPT)
def _read(
    path: str | os.PathLike, pieces: tuple[Piece, ...] | None, state: tuple[int, int] | None
) -> Header:
    """Reads a header. ``state`` changes with the file, so that a changed file is read again."""
    with open_file(path, pieces) as file:
        kind = kind_of(file)
        words = describe(kind, "" if pieces else path)
        decoder = KINDS[kind].decoder if kind else "sndfile"
        if not decoder:
            raise BadAudio(f"cannot be read (it is {words})")
        try:
            if decoder == "ffmpeg":
                raise NeedsMedia(f"is {words}")
            return check_length(read_sound_header(path, pieces), kind, file)
        except NeedsMedia as error:
            reason = error
        if not kind:
            raise BadAudio(str(reason))  # ffmpeg would decode noise, too
        if bytes_after_samples(file, kind):
            raise BadAudio(f"{MORE}; convert it to FLAC")  # ffmpeg would not read it either
        least = sum(ogg_lengths(file)) if kind == "Ogg" else 0
    if not import_av():
        raise BadAudio(f"{reason}; convert it to FLAC, or read it with ffmpeg's libraries: {EXTRA}")
    try:
        header = read_media_header(path, pieces)
    except BadAudio as error:
        raise BadAudio(f"{reason}, {error}" if decoder == "sndfile" else str(error)) from None
    if header.num_samples < least - 2 * TOLERANCE * header.sample_rate:
        raise BadAudio(f"{MORE}; convert it to FLAC")  # ffmpeg has lost some of the streams
    return header


def check_clip(
    header: Header,
    *,
    start: int | None = None,
    stop: int | None = None,
    channel: int | None = None,
    sample_rate: int | None = None,
    resample: bool = True,
    mix_down: bool | str = "mean",
) -> tuple[int, int]:
    """Checks that a clip can be used, before anything is decoded; returns its start and stop.

    The arguments are those of ``AudioReader``; ``sample_rate`` None accepts every rate. A
    ``BadAudio`` gives only the reason.

    Example
    -------
    >>> from brainquant.data.audio.decoders import Header
    >>> check_clip(Header(32000, 16000, 1), start=8000, stop=24000)
    (8000, 24000)
    >>> check_clip(Header(32000, 8000, 1), sample_rate=16000, resample=False)
    Traceback (most recent call last):
    brainquant.data.audio.files.BadAudio: has 8000 samples per second, not 16000; set resample: True
    """
    num_samples, rate, num_channels = header[:3]
    if rate != sample_rate:
        if not resample:
            raise BadAudio(f"has {rate} samples per second, not {sample_rate}; set resample: True")
        if rate not in RATES:
            raise BadAudio(
                f"has {rate} samples per second; {RATES[0]} to {RATES[-1]} can be resampled"
            )
    _check_channels(num_channels, channel, mix_down)
    if start is None or stop is None:
        return 0, num_samples
    rule = f"start and stop count samples at the file's own rate, {rate} Hz"
    for verb, sample in (("starts", start), ("ends", stop)):
        if sample > num_samples - (verb == "starts"):
            raise BadAudio(
                f"has {num_samples} samples ({num_samples / rate:.3f} s), and the clip {verb} at "
                f"sample {sample}; {rule}"
            )
    if stop - start < SHORTEST * rate:
        raise BadAudio(
            f"has a clip of {stop - start} samples, {start} to {stop}: {rule}; give seconds in the "
            f"columns start_time and end_time"
        )
    return start, stop


def _check_channels(num_channels: int, channel: int | None, mix_down: bool | str) -> None:
    if channel is not None:
        if not 0 <= channel < num_channels:
            raise BadAudio(
                f"has {num_channels} channel{'s' * (num_channels > 1)}, and the clip is channel "
                f"{channel}; the column channel counts from 0"
            )
    elif num_channels > 1 and not mix_down:
        raise BadAudio(
            f"has {num_channels} channels, not one; set mix_down: to mean, first or each"
        )
    elif num_channels > 1 and mix_down == "each":
        raise BadAudio(
            f"has {num_channels} channels, and mix_down: each needs to know which of them is the "
            f"clip; name it in the column channel, from 0 up"
        )


def decoder_endings() -> frozenset[str]:
    """The endings of audio files that need ``brainquant[codecs]``.

    List such files as audio whether or not the extra is installed: ``read_header`` names the extra.

    Example
    -------
    >>> ".m4a" in decoder_endings(), ".flac" in decoder_endings()
    (True, False)
    """
    kinds = (kind for kind in KINDS.values() if kind.decoder == "ffmpeg")
    return frozenset(ending for kind in kinds for ending in kind.endings.split())
