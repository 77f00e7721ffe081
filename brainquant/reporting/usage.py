"""How the use of codes has changed over a run, from the checkpoints that it has kept.

Shape suffixes: G codebooks, V codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..training.checkpoint_contents import Damaged, read_state


class Period(NamedTuple):
    """Steps between two checkpoints."""

    first: int  # the step before the first
    last: int
    counts_GV: np.ndarray  # how often each code was a target


def read_periods(checkpoints: Sequence[Any], shape: tuple[int, int]) -> list[Period]:
    """The counts of training targets between the checkpoints of a run, the earliest first.

    Each checkpoint holds the counts since the first step. One that does not, or is damaged, is
    passed over.

    Arguments
    ---------
    checkpoints : sequence of speechbrain.utils.checkpoints.Checkpoint
        Those that the run has kept, in any order.
    shape : tuple of (int, int)
        Codebooks and codes.

    Returns
    -------
    periods : list of Period
    """
    by_step: dict[int, np.ndarray] = {}
    for checkpoint in checkpoints:
        try:
            counts_GV = read_state(checkpoint, "brain")["tally"]["run"].numpy()
            if counts_GV.shape == shape:
                by_step[int(checkpoint.meta["step"])] = counts_GV
        except (Damaged, OSError, LookupError, TypeError, ValueError, AttributeError):
            continue
    return difference(by_step)


def difference(by_step: dict[int, np.ndarray]) -> list[Period]:
    """Periods of counts that grow from step to step.

    Example
    -------
    >>> periods = difference({9: np.array([[3, 4]]), 5: np.array([[3, 1]])})
    >>> [(period.first, period.last, period.counts_GV.tolist()) for period in periods]
    [(0, 5, [[3, 1]]), (5, 9, [[0, 3]])]
    """
    periods: list[Period] = []
    before: Any = 0
    step = 0
    for last in sorted(by_step):
        counts_GV = by_step[last] - before
        if counts_GV.min() >= 0 and counts_GV.sum() > 0:
            periods.append(Period(step, last, counts_GV))
            before, step = by_step[last], last
    return periods
