"""Which stretches of a code are listened to: long ones, from different speakers.

Shape suffix: S stretches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .code_tables import Stretches

CONTEXT = 0.2  # seconds before and after the code
LONGEST = 0.4  # seconds of a code that are played; what is longer is cut there


class Segment(NamedTuple):
    """A part of a clip that is listened to. Times are in seconds from the start of the clip."""

    clip: int  # the number of the clip
    start: float  # of the code
    end: float
    play_start: float  # of what is played, which has the code in it
    play_end: float


def choose_stretches(
    stretches: Stretches,
    code: int,
    speakers: Sequence[int],
    count: int,
    *,
    long: int,
    seed: int = 0,
) -> np.ndarray:
    """The stretches of a code that say most about it.

    They come from different speakers where possible, then from different clips. Stretches within
    a clip come before those at its border, and long ones before short ones.

    Arguments
    ---------
    stretches : Stretches
        Of all clips.
    code : int
        The code.
    speakers : sequence of int
        The number of each clip's speaker.
    count : int
        How many to choose at most.
    long : int
        Frames; stretches of so many or more count as equally long.
    seed : int
        Draws among equals.

    Returns
    -------
    chosen_S : np.ndarray
        Numbers of stretches.

    Example
    -------
    >>> from brainquant.reporting.code_tables import find_stretches
    >>> stretches = find_stretches([np.array([0, 7, 7, 0, 7, 0]), np.array([0, 7, 0])])
    >>> chosen = choose_stretches(stretches, 7, [0, 1], 2, long=10)
    >>> stretches.clip[chosen].tolist(), stretches.length[chosen].tolist()
    ([0, 1], [2, 1])
    """
    (found,) = np.nonzero(stretches.code == code)
    draw = np.random.default_rng((seed, code)).random(len(found))
    length = np.minimum(stretches.length[found], long)
    found = found[np.lexsort((draw, -length, stretches.at_border[found]))]
    # First one of each clip, then one of each speaker.
    found = found[np.argsort(_turn(stretches.clip[found]), kind="stable")]
    speaker_S = np.asarray(speakers, dtype=np.int64)[stretches.clip[found]]
    return found[np.argsort(_turn(speaker_S), kind="stable")][:count]


def _turn(groups: np.ndarray) -> np.ndarray:
    """How many of the same group come before each, in the given order.

    Example
    -------
    >>> _turn(np.array([4, 4, 2, 4])).tolist()
    [0, 1, 0, 2]
    """
    order = np.argsort(groups, kind="stable")
    is_first = np.ones(len(groups), dtype=bool)
    is_first[1:] = np.diff(groups[order]) != 0
    starts = np.flatnonzero(is_first)
    turn = np.empty(len(groups), dtype=np.int64)
    turn[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
    return turn


def segment_of(start: float, end: float, clip: int, clip_seconds: float) -> Segment:
    """The part of a clip that is played for a code in it.

    Arguments
    ---------
    start, end : float
        The code, in seconds from the start of the clip; may reach beyond the clip, as a frame does
        whose middle is inside.
    clip : int
        The number of the clip.
    clip_seconds : float
        Its length.

    Returns
    -------
    segment : Segment
        With up to ``CONTEXT`` on both sides. Of a code that is longer than ``LONGEST`` its first
        part.

    Example
    -------
    >>> segment_of(0.1, 0.25, 3, 0.5)
    Segment(clip=3, start=0.1, end=0.25, play_start=0.0, play_end=0.45)
    """
    start, end = min(max(0.0, start), clip_seconds), min(end, clip_seconds)
    shown = min(end, start + LONGEST)
    play = max(0.0, start - CONTEXT), min(clip_seconds, shown + CONTEXT)
    return Segment(clip, start, min(end, play[1]), *play)
