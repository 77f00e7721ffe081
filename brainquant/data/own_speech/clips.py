"""A clip: an audio file, or a part of one."""

import collections
import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from ..columns import CHANNEL, SEGMENT

COLUMNS = ("ID", "duration", "wav", *SEGMENT, CHANNEL, "spk_id")
ROUNDING = Decimal("0.1")  # seconds by which a time may exceed its file

Time = int | Decimal | None


@dataclasses.dataclass(slots=True)
class Clip:
    """An audio file, or a part of one.

    An int in ``start`` and ``stop`` counts samples at the file's own rate, a Decimal seconds. Both
    None: the whole file. Only ``stop`` None: to the end of the file. Only ``start`` None: the
    manifest says that the file lasts until ``stop``. Once the file's header is read, both are
    samples, or both None.
    """

    id: str  # from the manifest, or made from the path
    wav: str  # the path; absolute once the manifest is read
    name: str = ""  # the path relative to the source: it stays the same when the source is moved
    start: Time = None
    stop: Time = None
    channel: int | None = None  # counted from 0; None: all channels
    speaker: str = ""
    more: dict[str, str] = dataclasses.field(default_factory=dict)  # text by further columns
    seconds: float = 0.0  # the duration, once the file's header is read
    is_separated: bool = False  # mix_down: each made a clip of its channel, with its own speaker
    location: str = ""  # the row in the manifest, for messages
    fault: str | None = None  # what is wrong with that row

    @property
    def part(self) -> tuple[str, Time, Time, int | None]:
        """The file, and which part of it the clip is."""
        return self.wav, self.start, self.stop, self.channel

    @property
    def row(self) -> tuple[Any, ...]:
        """The values of ``COLUMNS``."""
        speaker = self.speaker
        if self.is_separated:
            speaker = f"{speaker or make_id(self.name)}-ch{self.channel}"
        return self.id, self.seconds, *self.part, speaker

    def in_samples(self, num_samples: int, rate: int) -> tuple[int | None, int | None]:
        """Start and stop as samples of a file of this length; both None for the whole file.

        Tools round the times that they write. A time up to 0.1 s after the end of the file means
        its end.

        Example
        -------
        >>> Clip("a", "a", "a", Decimal("0.5"), Decimal("2.05")).in_samples(32000, 16000)
        (8000, 32000)
        >>> Clip("a", "a", "a", None, Decimal("1.98")).in_samples(32000, 16000)
        (None, None)
        """
        start, stop = _in_samples(self.start, rate), _in_samples(self.stop, rate)
        if stop is None:
            return start, None if start is None else num_samples
        if start is None:
            # The duration of the file. If a file is longer, NeMo reads only this much of it.
            rounding = max(ROUNDING * rate, Decimal("0.01") * stop)
            return (None, None) if abs(stop - num_samples) <= rounding else (0, stop)
        if isinstance(self.stop, Decimal) and 0 < stop - num_samples <= ROUNDING * rate:
            stop = num_samples
        return start, stop


def _in_samples(time: Time, rate: int) -> int | None:
    if isinstance(time, Decimal):
        return int((time * rate).to_integral_value(ROUND_HALF_UP))
    return time


def cut(clip: Clip, start: int, stop: int, rate: int, max_seconds: float) -> list[Clip]:
    """Cuts a clip into equal parts, as few as possible; a short one stays whole.

    ``start`` and ``stop`` are its samples in the file.

    Example
    -------
    >>> [part.id for part in cut(Clip("a", "a", "a"), 0, 48000, 16000, 2.0)]
    ['a-000', 'a-001']
    """
    length = stop - start
    num_parts = max(1, -(-length // int(max_seconds * rate)))
    if num_parts == 1:
        return [dataclasses.replace(clip, seconds=length / rate)]
    bounds = [start + length * k // num_parts for k in range(num_parts + 1)]
    return [
        dataclasses.replace(
            clip, id=f"{clip.id}-{k:03d}", start=first, stop=last, seconds=(last - first) / rate
        )
        for k, (first, last) in enumerate(zip(bounds, bounds[1:]))
    ]


def separate(clip: Clip, num_channels: int) -> list[Clip]:
    """A clip for each channel.

    Example
    -------
    >>> [(one.id, one.row[-1]) for one in separate(Clip("x", "calls/a.wav", "calls/a.wav"), 2)]
    [('x-ch0', 'calls-a-ch0'), ('x-ch1', 'calls-a-ch1')]
    """
    return [
        dataclasses.replace(clip, id=f"{clip.id}-ch{channel}", channel=channel, is_separated=True)
        for channel in range(num_channels)
    ]


def make_id(name: str) -> str:
    """An ID from a path: letters and digits of any language, underscores and hyphens.

    Example
    -------
    >>> make_id("talks 2024/é, part 1.2.flac")
    'talks_2024-é_part_1_2'
    """
    parts = os.path.splitext(name)[0].split(os.sep)
    parts = (re.sub(r"[^\w-]+", "_", part).strip("_") for part in parts)
    return "-".join(filter(None, parts)) or "_"


def make_unique(clips: Iterable[Clip]) -> None:
    """Adds a hash to the IDs that several clips have, such as those of a.wav and a.mp3."""
    counts = collections.Counter(clip.id for clip in clips)
    for clip in clips:
        if counts[clip.id] > 1:
            clip.id += f"-{digest(clip.name, *clip.part[1:]).hex()[:8]}"


def digest(*values: Any) -> bytes:
    """Eight bytes that are the same for the same values, on any machine."""
    text = "/".join(map(str, values))
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
