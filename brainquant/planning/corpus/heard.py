"""What the clips of a sample are like together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from .sample import Reading
from .sound import Sound

SILENT = -90.0  # dB: the last step of 16 bits
VERY_QUIET = -60.0  # dB of a whole clip
CLIPPED = 0.0002  # of the samples: a clip with more is clipped
LARGE_OFFSET = 0.5  # of the root mean square of the clip


class Heard(NamedTuple):
    """The clips of a sample that could be read, of training or validation.

    Attributes
    ----------
    clips : int
        Their number.
    silent : int
        Clips below -90 dB.
    very_quiet : int
        Other clips below -60 dB.
    levels : tuple of float
        5 %, the median and 95 % of the levels of clips that are not silent, in dB.
    empty, quiet : float
        The shares of the time that are digital silence, and pauses: see ``Sound``.
    clipped : int
        Clips with more than 0.02 % of their samples in flat tops.
    clipped_samples : float
        The share of all samples in flat tops.
    offset : int
        Clips with an offset of at least half their root mean square.
    rates : dict of int to int
        The sample rates of the files, and how many clips have each.
    channels : dict of int to int
        The same for the channels of the files.
    judged : int
        Clips that are loud enough to judge their bandwidth.
    cutoffs : dict of float to int
        The narrow bands among them, in Hz, and how many clips have each.
    """

    clips: int
    silent: int
    very_quiet: int
    levels: tuple[float, float, float]
    empty: float
    quiet: float
    clipped: int
    clipped_samples: float
    offset: int
    rates: dict[int, int]
    channels: dict[int, int]
    judged: int
    cutoffs: dict[float, int]


def hear(readings: Iterable[Reading]) -> Heard:
    """Puts the clips of a sample together."""
    read = [(reading, reading.sound) for reading in readings if reading.sound]
    sounds = [sound for _, sound in read]
    loud = [sound for sound in sounds if sound.level >= SILENT]
    levels = np.percentile([sound.level for sound in loud] or [math.nan], [5, 50, 95]).tolist()
    cutoffs = [(reading, sound.cutoff) for reading, sound in read if sound.cutoff is not None]
    seconds = np.array([reading.row["duration"] for reading, _ in read])

    def share(of_clip: list[float]) -> float:
        """The share of the time."""
        return float(np.dot(of_clip, seconds) / seconds.sum()) if read else 0.0

    return Heard(
        clips=len(read),
        silent=len(sounds) - len(loud),
        very_quiet=sum(sound.level < VERY_QUIET for sound in loud),
        levels=tuple(levels),
        empty=share([sound.empty for sound in sounds]),
        quiet=share([sound.quiet for sound in sounds]),
        clipped=sum(sound.clipped > CLIPPED for sound in sounds),
        clipped_samples=share([sound.clipped for sound in sounds]),
        offset=sum(_has_offset(sound) for sound in loud),
        rates=dict(Counter(reading.sample_rate for reading, _ in read).most_common()),
        channels=dict(Counter(reading.channels for reading, _ in read).most_common()),
        judged=len(cutoffs),
        cutoffs=dict(
            Counter(cutoff for _, cutoff in cutoffs if cutoff < math.inf).most_common()
        ),
    )  # fmt: skip


def _has_offset(sound: Sound) -> bool:
    return abs(sound.offset) >= LARGE_OFFSET * 10 ** (sound.level / 20)
