"""A waveform of any length in pieces, and statistics of all of it.

Shape suffixes: L samples, T frames, X any dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch

Blocks = Iterable[torch.Tensor]  # a waveform in parts of any length, one after the other


class Piece(NamedTuple):
    """A piece of a waveform, and the frames that are made of it."""

    wav_L: torch.Tensor
    start: int  # of its first sample
    first: int  # frame
    last: int  # the frame after the last one


def cut(
    blocks: Blocks,
    length: int,
    span: Callable[[int, int], tuple[int, int]],
    count_frames: Callable[[int], int],
) -> Iterator[Piece]:
    """Cuts a waveform into pieces that make ``length`` frames each; the last makes fewer.

    Arguments
    ---------
    blocks : iterable of torch.Tensor
        The waveform. The pieces do not depend on where it is cut into blocks.
    length : int
        Frames of a piece.
    span : callable
        Gives the first sample that frames read, and the one after the last, from the first of these
        frames and the one after the last.
    count_frames : callable
        Gives the frames of a waveform of so many samples.

    Example
    -------
    >>> blocks = torch.arange(8.0).split(3)  # of which each frame reads 2 samples
    >>> for piece in cut(blocks, 2, lambda first, last: (first, last + 1), lambda n: n - 1):
    ...     piece.wav_L.tolist(), piece.first, piece.last
    ([0.0, 1.0, 2.0], 0, 2)
    ([2.0, 3.0, 4.0], 2, 4)
    ([4.0, 5.0, 6.0], 4, 6)
    ([6.0, 7.0], 6, 7)
    """
    wav_L, begin, first, waiting = torch.zeros(0), 0, 0, []
    end = 0  # of the samples that have come
    for block in blocks:
        waiting.append(block)
        end += len(block)
        while end >= (stop := span(first, first + length)[1]):
            if waiting:
                wav_L, waiting = torch.cat([wav_L.to(block), *waiting]), []
            start = span(first, first + length)[0]
            yield Piece(wav_L[start - begin : stop - begin], start, first, first + length)
            first += length
            read = min(len(wav_L), span(first, first + length)[0] - begin)
            wav_L, begin = wav_L[read:], begin + read
    if waiting:
        wav_L = torch.cat([wav_L.to(waiting[0]), *waiting])
    total = count_frames(end) if end else 0
    while first < total:
        last = min(first + length, total)
        start = span(first, last)[0]
        yield Piece(wav_L[start - begin :], start, first, last)
        first = last


class Moments:
    """Mean and variance of what comes in pieces, in float64.

    Example
    -------
    >>> moments = Moments()
    >>> moments.add(torch.tensor([1.0, 3.0]))
    >>> moments.add(torch.tensor([5.0]))
    >>> moments.count, float(moments.mean), round(float(moments.variance), 3)
    (3, 3.0, 2.667)
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0  # of what differs from the mean

    def add(self, x_TX: torch.Tensor) -> None:
        """Adds frames, or samples."""
        if not len(x_TX):
            return
        x_TX = x_TX.double()
        mean_X, count = x_TX.mean(0), self.count + len(x_TX)
        change_X = mean_X - self.mean
        self.squares = (
            self.squares
            + (x_TX - mean_X).square().sum(0)
            + change_X.square() * (self.count * len(x_TX) / count)
        )
        self.mean = self.mean + change_X * (len(x_TX) / count)
        self.count = count

    @property
    def variance(self) -> Any:
        """The variance, with the count as its divisor."""
        return self.squares / self.count

    def normalise(self, x_TX: torch.Tensor, eps: float) -> torch.Tensor:
        """Mean zero and variance one, as ``normalise_utterances`` gives them of a whole."""
        mean_X, deviation_X = (
            torch.as_tensor(value, dtype=x_TX.dtype, device=x_TX.device)
            for value in (self.mean, (self.variance + eps**2) ** 0.5)
        )
        return (x_TX - mean_X) / deviation_X
