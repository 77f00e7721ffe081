"""What an audio file holds, and whether a clip of it can be used: one answer for all who ask."""

import os
from typing import NamedTuple

import soundfile

LONGEST = 2**62  # samples: libsndfile's way to say that a header does not tell
RATES = range(1_000, 768_001)  # Hz: a header with another rate is no header of speech
MIX_DOWNS = (False, "mean", "first", "each")


class BadAudio(ValueError):
    """An audio file that cannot be trained on; the text names the file and says why."""


class Header(NamedTuple):
    """What is known of an audio file without its samples.

    Arguments
    ---------
    num_samples : int
        Of each channel, at the file's own rate.
    sample_rate : int
    num_channels : int
    """

    num_samples: int
    sample_rate: int
    num_channels: int


def read_header(path, offset=None, size=None):
    """What an audio file holds; all of its samples are behind this header.

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
        With the reason only, where it is no audio, has no samples, or holds more or less than it
        announces.

    Example
    -------
    >>> path = str(getfixture("tmp_path") / "a.flac")
    >>> soundfile.write(path, [0.0] * 8000, 16000)
    >>> read_header(path)[:3]
    (8000, 16000, 1)
    """
    if not os.path.isfile(path):
        raise BadAudio("there is no such file")
    try:
        info = soundfile.info(path)
    except (RuntimeError, TypeError) as error:  # TypeError: of a .raw file, which has no header
        raise BadAudio(f"cannot be read ({getattr(error, 'error_string', error)})") from None
    if info.frames == 0:
        raise BadAudio("has no samples")
    if info.frames >= LONGEST:
        raise BadAudio("has no length in its header")
    return Header(info.frames, info.samplerate, info.channels)


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
    """Whether a clip can be read, before anything is decoded: preparation and reader ask this.

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
    >>> check_clip(Header(32000, 16000, 1), start=8000, stop=24000)
    (8000, 24000)
    >>> check_clip(Header(32000, 16000, 2), mix_down=False)
    Traceback (most recent call last):
    brainquant.data.headers.BadAudio: has 2 channels, not one; set mix_down: to mean, first or each
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
    if stop - start < rate // 100:
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
            f"has {num_channels} channels, and mix_down: each wants to know which of them is the "
            f"clip; name it in the column channel, from 0 up"
        )


def decoder_endings():
    """Endings of files that are read where ``brainquant[codecs]`` is installed, without soundfile.

    Example
    -------
    >>> ".m4a" in decoder_endings()
    True
    """
    return frozenset({".m4a", ".mp4", ".aac", ".webm", ".mka", ".amr", ".oga", ".wma"})
