"""Which clips can be used, by the headers of their files."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from ..audio.decoders import Header
from ..audio.headers import BadAudio, check_clip, read_header
from ..prepare import in_threads
from .clips import Clip, separate

UNITS = (
    (int, "start and stop", "samples", {"seconds": 1, "milliseconds": 1000}),
    (Decimal, "start_time and end_time", "seconds", {"milliseconds": 1000}),
)
END_SECONDS = 0.1  # by which a rounded time may exceed its file


def read_headers(
    wavs: Sequence[str], num_workers: int | None
) -> tuple[dict[str, Header], dict[str, str]]:
    """The headers of files by path, and the reasons why the other files cannot be read."""
    results = dict(zip(wavs, in_threads(_read_one, wavs, num_workers=num_workers, unit="file")))
    headers = {wav: found for wav, found in results.items() if isinstance(found, Header)}
    return headers, {wav: str(results[wav]) for wav in wavs if wav not in headers}


def _read_one(wav: str) -> Header | BadAudio:
    try:
        wav.encode()
        if "\n" in wav or "\r" in wav:
            raise BadAudio("has a line break in its name")
        return read_header(wav)
    except UnicodeEncodeError:  # a manifest could not contain it
        return BadAudio("has a name that is not UTF-8")
    except BadAudio as error:
        return error


def find_samples(
    clips: Iterable[Clip],
    headers: Mapping[str, Header],
    *,
    mix_down: bool | str,
    sample_rate: int | None,
    resample: bool,
) -> tuple[list[tuple[Clip, int, int]], list[tuple[str, str]]]:
    """Finds the samples of each clip in its file. Clips of files that cannot be read are skipped.

    ``mix_down``, ``sample_rate`` and ``resample`` are those of ``AudioReader``. If ``mix_down`` is
    ``each``, every channel becomes a clip.

    Returns the clips, each with its first sample and the one after its last, and then the path of
    each clip that cannot be used, with the reason. A clip's own ``start`` and ``stop`` become
    these samples, or None for a whole file.

    Example
    -------
    >>> from brainquant.data.own_speech.clips import Clip
    >>> clips = [Clip("a", "a.wav", "a.wav", Decimal(1)), Clip("b", "a.wav", "a.wav", 9, 90000)]
    >>> reading = {"mix_down": "each", "sample_rate": 8000, "resample": True}
    >>> usable, bad = find_samples(clips, {"a.wav": Header(16000, 8000, 2)}, **reading)
    >>> [(clip.id, start, stop) for clip, start, stop in usable], len(bad)
    ([('a-ch0', 8000, 16000), ('a-ch1', 8000, 16000)], 1)
    """
    usable, bad = [], []
    for clip in clips:
        if (header := headers.get(clip.wav)) is None:
            continue
        clip.start, clip.stop = clip.in_samples(header.num_samples, header.sample_rate)
        parts = [clip]
        if mix_down == "each" and clip.channel is None and header.num_channels > 1:
            parts = separate(clip, header.num_channels)
        try:
            for part in parts:
                start, stop = check_clip(
                    header,
                    start=clip.start,
                    stop=clip.stop,
                    channel=part.channel,
                    sample_rate=sample_rate,
                    resample=resample,
                    mix_down=mix_down,
                )
                usable.append((part, start, stop))
        except BadAudio as error:
            bad.append((clip.wav, str(error)))
    return usable, bad


def check_units(
    path: str, clips: Iterable[Clip], headers: Mapping[str, Header], min_seconds: float
) -> None:
    """Refuses a manifest whose times can only be meant in another unit.

    Call it before ``find_samples``. A ValueError is raised if more than half of the parts of files
    would be too short or start after the end, and all of them would fit in another unit.

    Example
    -------
    >>> from brainquant.data.own_speech.clips import Clip
    >>> clips = [Clip("a", "a.wav", "a.wav", 1, 3)]
    >>> try:
    ...     check_units("my.csv", clips, {"a.wav": Header(64000, 16000, 1)}, 1.0)
    ... except ValueError as error:
    ...     str(error).split("; ")[1].split(":")[0]
    'they look like seconds'
    """
    for kind, columns, unit, others in UNITS:
        odd, ends, num_parts = [], [], 0  # ends: of each part and of its file, in seconds
        for clip in clips:
            header, start, stop = headers.get(clip.wav), clip.start, clip.stop
            if header is None or not isinstance(start, kind) or not isinstance(stop, kind):
                continue
            num_parts += 1
            ends.append((float(stop), header.num_samples / header.sample_rate))
            if kind is int:
                is_odd = stop - start < min_seconds * header.sample_rate
            else:
                is_odd = start * header.sample_rate >= header.num_samples
            if is_odd:
                odd.append(f"{start} to {stop}")
        if 2 * len(odd) <= num_parts:
            continue
        for other, factor in others.items():
            if all(stop / factor <= seconds + END_SECONDS for stop, seconds in ends):
                raise ValueError(
                    f"{path}: {len(odd)} of {num_parts} clips would be too short or after the "
                    f"end of their file if {columns} were {unit}, the first is {odd[0]}; they "
                    f"look like {other}: samples go in the columns start and stop, seconds in "
                    f"start_time and end_time"
                )
