"""A clip: a file of audio, or a part of it."""

import collections
import dataclasses
import hashlib
import os
import re
from decimal import ROUND_HALF_UP, Decimal

from ..columns import CHANNEL, SEGMENT

COLUMNS = ("ID", "duration", "wav", *SEGMENT, CHANNEL, "spk_id")
ROUNDING = Decimal("0.1")  # seconds that a time may be beyond the end of its file


@dataclasses.dataclass(slots=True)
class Clip:
    """A file, or a part of it.

    Arguments
    ---------
    id : str
        Its own, or made of its path.
    wav : str
        Absolute path.
    name : str
        The path relative to the source: it stays when the source is moved.
    start, stop : int, Decimal or None
        As in ``forms.rows.Row``; once the header of the file is read, both are samples, or both
        None for all of it.
    channel : int or None
        From 0; None: all of them.
    speaker : str
        Or "".
    more : dict
        Text by further columns of the manifest.
    seconds : float
        Its duration, once the header of the file is read.
    separated : bool
        Whether ``mix_down: each`` made its channel a clip, with a speaker of its own.
    """

    id: str
    wav: str
    name: str
    start: int | Decimal | None = None
    stop: int | Decimal | None = None
    channel: int | None = None
    speaker: str = ""
    more: dict = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    separated: bool = False

    @property
    def place(self):
        """The file, and what the clip is of it."""
        return self.wav, self.start, self.stop, self.channel

    @property
    def row(self):
        """The values of ``COLUMNS``."""
        speaker = self.speaker
        if self.separated:
            speaker = f"{speaker or make_id(self.name)}-ch{self.channel}"
        return self.id, self.seconds, *self.place, speaker

    def in_samples(self, num_samples, rate):
        """Start and stop as samples of a file of so many, or two Nones for all of it.

        Tools round the times that they write: one up to 0.1 s beyond the end of the file is its
        end.

        Example
        -------
        >>> Clip("a", "a", "a", Decimal("0.5"), Decimal("2.05")).in_samples(32000, 16000)
        (8000, 32000)
        >>> Clip("a", "a", "a", None, Decimal("1.98")).in_samples(32000, 16000)
        (None, None)
        """
        start, stop = (_in_samples(time, rate) for time in (self.start, self.stop))
        if stop is None:
            return start, None if start is None else num_samples
        if start is None:
            # The duration of the file: NeMo reads no more than that of a longer file.
            rounding = max(ROUNDING * rate, Decimal("0.01") * stop)
            return (None, None) if abs(stop - num_samples) <= rounding else (0, stop)
        if isinstance(self.stop, Decimal) and 0 < stop - num_samples <= ROUNDING * rate:
            stop = num_samples
        return start, stop


def _in_samples(time, rate):
    if isinstance(time, Decimal):
        return int((time * rate).to_integral_value(ROUND_HALF_UP))
    return time


def cut(clip, start, stop, rate, max_seconds):
    """Cuts a clip into equal parts, as few as possible; a short one stays whole.

    Arguments
    ---------
    clip : Clip
        Its ``start`` and ``stop`` are samples, or None for all of the file.
    start, stop : int
        Samples.
    rate : int
        Samples per second.
    max_seconds : float

    Returns
    -------
    list of Clip

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


def separate(clip, num_channels):
    """A clip for each channel.

    Example
    -------
    >>> [(one.id, one.row[-1]) for one in separate(Clip("x", "calls/a.wav", "calls/a.wav"), 2)]
    [('x-ch0', 'calls-a-ch0'), ('x-ch1', 'calls-a-ch1')]
    """
    return [
        dataclasses.replace(clip, id=f"{clip.id}-ch{channel}", channel=channel, separated=True)
        for channel in range(num_channels)
    ]


def make_id(name):
    """An ID from a path: letters and digits of any language, underscores and hyphens.

    Example
    -------
    >>> make_id("talks 2024/é, part 1.2.flac")
    'talks_2024-é_part_1_2'
    """
    parts = os.path.splitext(name)[0].split(os.sep)
    return (
        "-".join(filter(None, (re.sub(r"[^\w-]+", "_", part).strip("_") for part in parts))) or "_"
    )


def make_unique(clips):
    """Adds a hash of name and place to IDs that several clips have, as those of a.wav and a.mp3."""
    counts = collections.Counter(clip.id for clip in clips)
    for clip in clips:
        if counts[clip.id] > 1:
            clip.id += f"-{digest(clip.name, *clip.place[1:]).hex()[:8]}"


def digest(*values):
    """Eight bytes that are the same for the same values, on any machine."""
    text = "/".join(map(str, values))
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
