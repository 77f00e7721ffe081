"""Which clips of one's own can be used, by the headers of their files."""

from decimal import Decimal

from ..audio.headers import BadAudio, check_clip, read_header
from ..prepare import in_threads
from .clips import separate

UNITS = (
    (int, "start and stop", "samples", {"seconds": 1, "milliseconds": 1000}),
    (Decimal, "start_time and end_time", "seconds", {"milliseconds": 1000}),
)
END_SECONDS = 0.1  # how far a time may be beyond the end of its file, by rounding


def read_headers(wavs, num_workers):
    """A ``Header`` by path, or what is wrong with the file as a ``BadAudio``."""
    return dict(zip(wavs, in_threads(_read_one, wavs, num_workers=num_workers, unit="file")))


def _read_one(wav):
    try:
        wav.encode()
        if "\n" in wav or "\r" in wav:
            raise BadAudio("has a line break in its name")
        return read_header(wav)
    except UnicodeEncodeError:  # a manifest could not hold it
        return BadAudio("has a name that is not UTF-8")
    except BadAudio as error:
        return error


def place_clips(clips, headers, *, mix_down, sample_rate, resample):
    """Finds each clip in its file, as samples.

    Arguments
    ---------
    clips : list of Clip
        Those of files that cannot be read are passed over.
    headers : dict
        What ``read_headers`` returns.
    mix_down, sample_rate, resample
        As for ``check_clip``. Where ``mix_down`` is ``each``, every channel becomes a clip.

    Returns
    -------
    placed : list of (Clip, int, int)
        With the first sample and the one after the last. Its own ``start`` and ``stop`` are these,
        too, or None for a whole file.
    bad : list of (Clip, str)
        And why it cannot be used.

    Example
    -------
    >>> from brainquant.data.own_speech.clips import Clip
    >>> from brainquant.data.audio.decoders import Header
    >>> clips = [Clip("a", "a.wav", "a.wav", Decimal(1)), Clip("b", "a.wav", "a.wav", 9, 90000)]
    >>> reading = {"mix_down": "each", "sample_rate": 8000, "resample": True}
    >>> placed, bad = place_clips(clips, {"a.wav": Header(16000, 8000, 2)}, **reading)
    >>> [(clip.id, start, stop) for clip, start, stop in placed], bad[0][0].id
    ([('a-ch0', 8000, 16000), ('a-ch1', 8000, 16000)], 'b')
    """
    placed, bad = [], []
    for clip in clips:
        header = headers[clip.wav]
        if isinstance(header, BadAudio):
            continue
        clip.start, clip.stop = clip.in_samples(header.num_samples, header.sample_rate)
        parts = [clip]
        if mix_down == "each" and clip.channel is None and header.num_channels > 1:
            parts = separate(clip, header.num_channels)
        try:
            for part in parts:
                start, stop = check_clip(
                    header,
                    start=part.start,
                    stop=part.stop,
                    channel=part.channel,
                    sample_rate=sample_rate,
                    resample=resample,
                    mix_down=mix_down,
                )
                placed.append((part, start, stop))
        except BadAudio as error:
            bad.append((clip, str(error)))
    return placed, bad


def _is_odd(clip, num_samples, rate, min_seconds):
    """Whether a clip would be left out: it is behind the end, or too short if it is in samples."""
    if isinstance(clip.start, int):
        return clip.stop - clip.start < min_seconds * rate
    return clip.start * rate >= num_samples


def check_units(path, clips, headers, min_seconds):
    """Refuses a manifest whose times can only be meant in another unit.

    Arguments
    ---------
    path : str
        Of the manifest.
    clips : list of Clip
        Before ``place_clips``.
    headers : dict
    min_seconds : float
        What is shorter would be left out.

    Raises
    ------
    ValueError
        Where more than half of the parts of files would be too short, or behind the end, and all
        of them would fit in another unit.

    Example
    -------
    >>> from brainquant.data.own_speech.clips import Clip
    >>> from brainquant.data.audio.decoders import Header
    >>> clips = [Clip("a", "a.wav", "a.wav", 1, 3)]
    >>> try:
    ...     check_units("my.csv", clips, {"a.wav": Header(64000, 16000, 1)}, 1.0)
    ... except ValueError as error:
    ...     str(error).split("; ")[1].split(":")[0]
    'they look like seconds'
    """
    for kind, columns, unit, others in UNITS:
        parts = [
            (clip, headers[clip.wav])
            for clip in clips
            if isinstance(clip.start, kind)
            and isinstance(clip.stop, kind)
            and not isinstance(headers[clip.wav], BadAudio)
        ]
        odd = [clip for clip, header in parts if _is_odd(clip, *header[:2], min_seconds)]
        if 2 * len(odd) <= len(parts):
            continue
        for other, factor in others.items():
            if all(
                float(clip.stop) / factor <= num_samples / rate + END_SECONDS
                for clip, (num_samples, rate, *_) in parts
            ):
                raise ValueError(
                    f"{path}: {len(odd)} of {len(parts)} clips would be too short or behind the "
                    f"end of their file if {columns} were {unit}, the first is {odd[0].start} to "
                    f"{odd[0].stop}; they look like {other}: samples go in the columns start and "
                    f"stop, seconds in start_time and end_time"
                )
