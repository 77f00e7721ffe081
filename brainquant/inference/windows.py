"""Long audio in windows: steps of frames, with context on both sides.

Shape suffixes: T feature frames, F features, D dim.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch


class Plan(NamedTuple):
    """How long windows are, in encoder frames."""

    step: int  # frames of a window that are kept
    before: int  # frames of context before them
    after: int  # and after them


class Window(NamedTuple):
    """A window of features."""

    feats_TF: torch.Tensor
    start: int  # the first encoder frame that is kept, counted from the start of the audio
    kept: slice  # encoder frames of the window that are kept


def cut_windows(pieces: Iterable[torch.Tensor], stack: int, plan: Plan) -> Iterator[Window]:
    """Cuts features into windows, each as soon as its context has come.

    Arguments
    ---------
    pieces : iterable of torch.Tensor
        Features, shape (frames, features), one piece after the other.
    stack : int
        Features frames of one encoder frame. The last encoder frame may have fewer.
    plan : Plan
        Its steps follow each other without a gap; the last one is shorter.

    Example
    -------
    >>> pieces = torch.arange(7.0)[:, None].split(2)
    >>> for window in cut_windows(pieces, 1, Plan(step=3, before=1, after=2)):
    ...     window.feats_TF[:, 0].tolist(), window.start, window.feats_TF[window.kept, 0].tolist()
    ([0.0, 1.0, 2.0, 3.0, 4.0], 0, [0.0, 1.0, 2.0])
    ([2.0, 3.0, 4.0, 5.0, 6.0], 3, [3.0, 4.0, 5.0])
    ([5.0, 6.0], 6, [6.0])
    """
    held_TF, begin, start = None, 0, 0  # begin: the encoder frame that held_TF begins with

    def window(stop: int, end: int) -> Window:
        assert held_TF is not None
        feats_TF = held_TF[: (end - begin) * stack]
        return Window(feats_TF, start, slice(start - begin, stop - begin))

    for piece_TF in pieces:
        held_TF = piece_TF if held_TF is None else torch.cat([held_TF, piece_TF])
        while begin + len(held_TF) // stack >= (end := start + plan.step + plan.after):
            yield window(start + plan.step, end)
            start += plan.step
            read = max(0, start - plan.before - begin)
            held_TF, begin = held_TF[read * stack :], begin + read
    total = 0 if held_TF is None else begin - -len(held_TF) // stack
    while held_TF is not None and start < total:
        stop = min(start + plan.step, total)
        yield window(stop, min(stop + plan.after, total))
        start = stop
        read = max(0, start - plan.before - begin)
        held_TF, begin = held_TF[read * stack :], begin + read
