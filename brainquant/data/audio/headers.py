"""What an audio file holds, and whether a clip of it can be used: the one place that decides."""

import functools
import os

from .containers import bytes_behind, ogg_lengths
from .decoders import EXTRA, NeedsMedia, count_media, header_of, import_av, open_sound
from .files import BadAudio, open_file
from .kinds import KINDS, decoder_of, describe, kind_of
from .lengths import MORE, TOLERANCE, whole_header

MIX_DOWNS = (False, "mean", "first", "each")  # what becomes of several channels
RATES = range(1_000, 768_001)  # Hz: a header with another rate is no header of speech
SHORTEST = 0.01  # seconds: start and stop of a shorter clip are seconds, and no samples
KEPT = 2**15  # headers that a process remembers, for the next clip of a file or the next epoch


def read_header(path, offset=None, size=None):
    """Reads what an audio file holds, and refuses a file with more audio than its header gives.

    The length in the header is checked: MP3 frames are counted, an Ogg file is searched for further
    streams and a WAV file for data after its samples, and the last frame of a FLAC file is parsed.
    A file that only ffmpeg's libraries read is decoded from its beginning to its end.

    Arguments
    ---------
    path : str
        A file, or the tar that it is in.
    offset, size : int or None
        Bytes of the tar. None: the path is no tar.

    Returns
    -------
    Header

    Raises
    ------
    BadAudio
        With the reason only, where it is no audio, has no samples, or more or less of them than
        can be read.

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
    return _read(path, offset, size, state)


@functools.lru_cache(KEPT)
def _read(path, offset, size, state):
    """Reads a header; ``state`` changes with the file, so that a changed file is read again."""
    with open_file(path, offset, size) as file:
        kind = kind_of(file)
        words, decoder = describe(kind, path if offset is None else None), decoder_of(kind)
        if not decoder:
            raise BadAudio(f"cannot be read (it is {words})")
        try:
            if decoder == "ffmpeg":
                raise NeedsMedia(f"is {words}")
            with open_sound(path, offset, size) as sound:
                header = header_of(sound)
            return whole_header(header, kind, file, path, offset or 0)
        except NeedsMedia as error:
            reason = error
        if not kind:
            raise BadAudio(str(reason))  # ffmpeg would decode noise, too
        if bytes_behind(file, kind):
            raise BadAudio(f"{MORE}; convert it to FLAC")  # ffmpeg would not read it either
        least = sum(ogg_lengths(file)) if kind == "Ogg" else 0
    if not import_av():
        raise BadAudio(f"{reason}; convert it to FLAC, or read it with ffmpeg's libraries: {EXTRA}")
    try:
        header = count_media(path, offset, size)
    except BadAudio as error:
        raise BadAudio(f"{reason}, {error}" if decoder == "sndfile" else str(error)) from None
    if header.num_samples < least - 2 * TOLERANCE * header.sample_rate:
        raise BadAudio(f"{MORE}; convert it to FLAC")  # ffmpeg has lost some of the streams
    return header


def check_clip(
    header,
    *,
    start=None,
    stop=None,
    channel=None,
    sample_rate=None,
    resample=True,
    mix_down="mean",
):
    """Checks that a clip can be read, before anything is decoded, for preparation and reader.

    Arguments
    ---------
    header : Header
        Of the clip's file.
    start, stop : int or None
        The first sample of the clip and the one after its last, at the file's own rate. None: the
        whole file.
    channel : int or None
        The channel that is the clip; they count from 0.
    sample_rate : int or None
        Samples per second that are wanted. None: any will do.
    resample : bool
        Whether files of other rates are resampled.
    mix_down : bool or str
        What becomes of several channels, see ``AudioReader``.

    Returns
    -------
    start, stop : int
        Those of the clip.

    Raises
    ------
    BadAudio
        With the reason only.

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
    if start is None:
        return 0, num_samples
    if start >= num_samples:
        raise BadAudio(
            f"has {num_samples} samples ({num_samples / rate:.3f} s), and the clip starts at "
            f"sample {start}; start and stop count samples at the file's own rate, {rate} Hz"
        )
    if stop > num_samples:
        raise BadAudio(
            f"has {num_samples} samples ({num_samples / rate:.3f} s), and the clip ends at sample "
            f"{stop}; start and stop count samples at the file's own rate, {rate} Hz"
        )
    if stop - start < SHORTEST * rate:
        raise BadAudio(
            f"has a clip of {stop - start} samples, {start} to {stop}: start and stop count "
            f"samples at the file's own rate, {rate} Hz; give seconds in the columns start_time "
            f"and end_time"
        )
    return start, stop


def _check_channels(num_channels, channel, mix_down):
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


def decoder_endings():
    """Endings of files that need ``brainquant[codecs]``: other audio is read without it.

    List them as audio whether or not the extra is installed: ``read_header`` says what is missing.

    Example
    -------
    >>> ".m4a" in decoder_endings(), ".flac" in decoder_endings()
    (True, False)
    """
    kinds = (kind for kind in KINDS.values() if kind.decoder == "ffmpeg")
    return frozenset(ending for kind in kinds for ending in kind.endings.split())
