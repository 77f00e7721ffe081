"""How often each code is used, how long it lasts, who says it and in which phones.

Shape suffixes: T frames of a clip, N frames of all clips, S stretches, V codes, P phones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

UNKNOWN = -1  # a frame without a phone


class Stretches(NamedTuple):
    """Stretches of frames with one code, in the order of the clips; all have shape (stretches,)."""

    code: np.ndarray
    clip: np.ndarray  # the number of the clip
    first: np.ndarray  # the first frame, counted in its clip
    length: np.ndarray  # frames
    at_border: np.ndarray  # whether it touches the start or the end of its clip


class CodeTable(NamedTuple):
    """What is known of each code of a codebook, by code."""

    frames_V: np.ndarray  # how often it was used
    stretches_V: np.ndarray  # of one or more frames
    speakers_V: np.ndarray  # that it was used by
    frames_VP: np.ndarray  # how often it was used in each phone; (V, 0) without alignments

    @property
    def order(self) -> np.ndarray:
        """The codes in use, the commonest first; of equally common ones the lower first."""
        order = np.argsort(-self.frames_V, kind="stable")
        return order[: np.count_nonzero(self.frames_V)]

    @property
    def share_V(self) -> np.ndarray:
        """The share of the frames that each code has."""
        return self.frames_V / max(1, self.frames_V.sum())

    @property
    def phone_share_VP(self) -> np.ndarray:
        """P(phone | code), over the frames whose phone is known; 0 for a code without such."""
        return self.frames_VP / np.maximum(1, self.frames_VP.sum(1, keepdims=True))


def find_stretches(clips: Sequence[np.ndarray]) -> Stretches:
    """Divides clips into stretches of one code.

    Arguments
    ---------
    clips : sequence of np.ndarray
        The codes of each clip, shape (frames,).

    Returns
    -------
    stretches : Stretches

    Example
    -------
    >>> stretches = find_stretches([np.array([7, 7, 5]), np.array([5])])
    >>> stretches.code.tolist(), stretches.first.tolist(), stretches.length.tolist()
    ([7, 5, 5], [0, 2, 0], [2, 1, 1])
    """
    lengths = np.array([len(codes_T) for codes_T in clips], dtype=np.int64)
    ends = np.cumsum(lengths)
    codes_N = np.concatenate([np.zeros(0, np.int64), *clips]).astype(np.int64)
    is_first_N = np.ones(len(codes_N), dtype=bool)
    is_first_N[1:] = codes_N[1:] != codes_N[:-1]
    is_first_N[(ends - lengths)[lengths > 0]] = True
    starts_S = np.flatnonzero(is_first_N)
    length_S = np.diff(starts_S, append=len(codes_N))
    clip_S = np.searchsorted(ends, starts_S, side="right")
    first_S = starts_S - (ends - lengths)[clip_S]
    at_border = (first_S == 0) | (first_S + length_S == lengths[clip_S])
    return Stretches(codes_N[starts_S], clip_S, first_S, length_S, at_border)


def tabulate(
    stretches: Stretches,
    speakers: Sequence[int],
    num_codes: int,
    *,
    phones: Sequence[np.ndarray] | None = None,
    num_phones: int = 0,
) -> CodeTable:
    """Counts frames, stretches, speakers and phones of each code.

    Arguments
    ---------
    stretches : Stretches
        Of all clips.
    speakers : sequence of int
        The number of each clip's speaker.
    num_codes : int
        Codes of the codebook.
    phones : sequence of np.ndarray or None
        The number of each frame's phone, or ``UNKNOWN``, for each clip; at least as many as its
        frames. None: there are no alignments.
    num_phones : int
        Kinds of phones.

    Returns
    -------
    table : CodeTable

    Example
    -------
    >>> stretches = find_stretches([np.array([1, 1, 0]), np.array([1])])
    >>> table = tabulate(stretches, [0, 1], 3, phones=[np.array([0, 1, 1]), np.array([1])],
    ...     num_phones=2)
    >>> table.frames_V.tolist(), table.stretches_V.tolist(), table.speakers_V.tolist()
    ([1, 3, 0], [1, 2, 0], [1, 2, 0])
    >>> table.frames_VP.tolist(), table.order.tolist()
    ([[0, 1], [1, 2], [0, 0]], [1, 0])
    """
    code_S, size = stretches.code, num_codes
    frames_V = np.bincount(code_S, stretches.length, size).astype(np.int64)
    num_speakers = 1 + max(speakers, default=0)
    speaker_S = np.asarray(speakers, dtype=np.int64)[stretches.clip]
    speakers_V = np.bincount(
        np.unique(code_S * num_speakers + speaker_S) // num_speakers, minlength=size
    )
    frames_VP = np.zeros((size, num_phones), dtype=np.int64)
    if phones is not None and len(code_S):
        code_N = np.repeat(code_S, stretches.length)
        frames = np.bincount(stretches.clip, stretches.length, len(phones)).astype(np.int64)
        phone_N = np.concatenate([of_clip[:count] for of_clip, count in zip(phones, frames)])
        known_N = phone_N != UNKNOWN
        np.add.at(frames_VP, (code_N[known_N], phone_N[known_N]), 1)
    return CodeTable(frames_V, np.bincount(code_S, minlength=size), speakers_V, frames_VP)


def order_by_phone(table: CodeTable) -> tuple[np.ndarray, np.ndarray]:
    """Orders codes and phones so that a matrix of them has a diagonal.

    Arguments
    ---------
    table : CodeTable
        With phones.

    Returns
    -------
    codes : np.ndarray
        The codes with a known phone: by their commonest phone, then by its share, highest first.
    phones : np.ndarray
        All phones, the one with the most frames first.

    Example
    -------
    >>> frames_VP = np.array([[0, 4], [5, 0], [3, 1], [0, 0]])
    >>> order_by_phone(CodeTable(frames_VP.sum(1), frames_VP.sum(1), frames_VP.sum(1), frames_VP))
    (array([1, 2, 0]), array([0, 1]))
    """
    phones = np.argsort(-table.frames_VP.sum(0), kind="stable")
    share_VP = table.phone_share_VP[:, phones]
    known = np.flatnonzero(table.frames_VP.sum(1))
    best = share_VP[known].argmax(1)
    return known[np.lexsort((-share_VP[known, best], best))], phones
