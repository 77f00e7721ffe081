"""ABX: how well features distinguish phones, without a classifier.

X and A are the same phone, B is another one. An error is an X that is nearer to B than to A (Schatz
et al., Interspeech 2013). fastabx does the work (https://arxiv.org/abs/2505.02692).

Shape suffixes: B, C items, S, R frames of an item, T frames of an utterance, D dim or codebooks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from speechbrain.utils.logger import get_logger

from ..data.alignments import Phone
from ..functional.imports import import_late

logger = get_logger(__name__)

LOWEST_PYTHON = (3, 12)  # of fastabx
# What alignments of common tools and corpora call a stretch without a phone, in small letters.
NO_PHONES = frozenset(["", "sil", "<sil>", "sp", "spn", "nsn", "<eps>", "h#", "pau", "epi"])
# As in the ZeroSpeech challenges: items of a phone and speaker, and speakers of X for an A and B.
MAX_ITEMS, MAX_SPEAKERS = 10, 5
NOTHING = (
    "ABX: nothing can be compared, with {} phones of {} speakers; give more utterances, so that "
    "a speaker has two phones, one of them twice"
)


class SpokenPhone(NamedTuple):
    """A phone that a speaker has spoken in an utterance."""

    utterance: int  # its number
    phone: str
    speaker: str
    start: float  # in seconds
    end: float


def spoken_phones(
    alignments: Sequence[Sequence[Phone]], speakers: Sequence[str]
) -> list[SpokenPhone]:
    """The phones of utterances, without silence and noise.

    Arguments
    ---------
    alignments : sequence
        For each utterance what ``brainquant.data.alignments.read_alignment`` gives.
    speakers : sequence of str
        The speaker of each utterance.

    Example
    -------
    >>> phones = spoken_phones([[(0.0, 0.2, "SIL"), (0.2, 0.3, "s")]], ["ann"])
    >>> phones == [SpokenPhone(0, "s", "ann", 0.2, 0.3)]
    True
    """
    return [
        SpokenPhone(number, phone, speaker, start, end)
        for number, (alignment, speaker) in enumerate(zip(alignments, speakers))
        for start, end, phone in alignment
        if phone.lower() not in NO_PHONES
    ]


def abx_errors(
    frames: Sequence[np.ndarray],
    phones: Sequence[SpokenPhone],
    frame_times: Callable[[int], np.ndarray],
    *,
    seed: int = 0,
) -> dict[str, float | None]:
    """The ABX error of phones, within a speaker and across speakers. Chance is 0.5.

    A phone is represented by the frames whose middle is inside it, or, if there are none, by the
    frame that is nearest to its middle. Two phones are compared by dynamic time warping. Features
    have the angular distance. Codes have the share of codebooks whose codes differ. The phones
    beside it do not matter ("any context"). As in the ZeroSpeech challenges, at most 10 items of
    each phone and speaker are compared, and all pairs of phones have the same weight.

    Arguments
    ---------
    frames : sequence of array
        For each utterance its features, floats of shape (frames, dim), or its codes, integers of
        shape (frames, codebooks).
    phones : sequence of SpokenPhone
        What is compared.
    frame_times : callable
        Seconds at the middle of each of so many frames, ``encoder.frame_times``.
    seed : int
        Draws the items that are compared.

    Returns
    -------
    errors : dict
        ``within``: A, B and X are of one speaker; None if no speaker has a phone twice and another
        one. ``across``: X is of another speaker than A and B; None if there is one speaker only.

    Raises
    ------
    ImportError
        If fastabx is not installed, or Python is too old for it.
    ValueError
        If there is nothing to compare at all, or features are not finite.
    """
    fastabx = import_fastabx()
    if not phones:
        raise ValueError(NOTHING.format(0, 0))
    polars = import_late("polars")
    data_SD, bounds = _cut(frames, phones, frame_times)
    accessor = fastabx.InMemoryAccessor(dict(enumerate(bounds)), data_SD, torch.device("cpu"))
    labels = {"phone": [p.phone for p in phones], "speaker": [p.speaker for p in phones]}
    dataset = fastabx.Dataset(polars.DataFrame(labels), accessor)
    distance = "angular" if data_SD.is_floating_point() else share_of_other_codes

    def error(**conditions: list[str]) -> float | None:
        sampler = fastabx.Subsampler(MAX_ITEMS, MAX_SPEAKERS, seed)
        try:
            task = fastabx.Task(dataset, on="phone", subsampler=sampler, **conditions)
        except fastabx.EmptyTaskError:
            return None
        score = fastabx.Score(task, distance, progress=False)
        return score.collapse(levels=["speaker"])

    errors = {"within": error(by=["speaker"]), "across": error(across=["speaker"])}
    if set(errors.values()) == {None}:
        raise ValueError(NOTHING.format(len(phones), len({p.speaker for p in phones})))
    return errors


def import_fastabx() -> ModuleType:
    """Imports fastabx; an ImportError says what to install."""
    if sys.version_info < LOWEST_PYTHON:
        raise ImportError(
            f"ABX needs fastabx, which needs Python 3.12 or newer, and this is Python "
            f"{'.'.join(map(str, sys.version_info[:2]))}; use a newer Python, or leave ABX out"
        )
    try:
        return import_late("fastabx")
    except ImportError as error:
        raise ImportError(
            f'ABX needs fastabx ({error}); pip install "brainquant[abx]", or pip install -e '
            f'".[abx]" in a clone of the repository'
        ) from error


def share_of_other_codes(codes_BSD: torch.Tensor, codes_CRD: torch.Tensor) -> torch.Tensor:
    """The share of codebooks whose codes differ, shape (B, C, S, R), as a distance for fastabx.

    Example
    -------
    >>> codes_BSD = torch.tensor([[[7, 1], [7, 2]]])
    >>> share_of_other_codes(codes_BSD, codes_BSD)
    tensor([[[[0.0000, 0.5000],
              [0.5000, 0.0000]]]])
    """
    total = codes_BSD.new_zeros((), dtype=torch.float32)
    for codes_BS, codes_CR in zip(codes_BSD.unbind(2), codes_CRD.unbind(2)):
        total = total + (codes_BS[:, None, :, None] != codes_CR[None, :, None, :])
    return total / codes_BSD.shape[2]


def _cut(
    frames: Sequence[np.ndarray],
    phones: Sequence[SpokenPhone],
    frame_times: Callable[[int], np.ndarray],
) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """The frames of all phones one after another, and the first and last of each."""
    times = [frame_times(len(frames_TD)) for frames_TD in frames]
    pieces, bounds, length = [], [], 0
    for utterance, _, _, start, end in phones:
        first, last = np.searchsorted(times[utterance], [start, end])
        if first == last:
            first = int(np.abs(times[utterance] - (start + end) / 2).argmin())
            last = first + 1
        pieces.append(frames[utterance][first:last])
        bounds.append((length, length := length + int(last - first)))
    joined_SD = np.concatenate(pieces)
    if not np.isfinite(joined_SD).all():
        raise ValueError("ABX: features are not finite; look for NaN in the weights or the audio")
    dtype: Any = np.float32 if np.issubdtype(joined_SD.dtype, np.floating) else np.int64
    return torch.from_numpy(joined_SD.astype(dtype)), bounds
