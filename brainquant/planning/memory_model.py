"""The memory of a batch, from steps on smaller batches.

The peak of a step grows with the padded seconds of its batch, and attention adds a part for the
longest clip: ``start + slope * padded_seconds * (1 + ratio * longest_seconds)``. The part that does
not depend on the batch (parameters, gradients, the optimiser's state) peaks at another moment of
the step than the activations do. So a line through tiny batches is too flat: only batches above
the floor say how the peak grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .largest_batch import BatchShape
from .trial_steps import Trial, TrialStep

ABOVE_FLOOR = 1.02  # as a factor of the memory of the smallest step


class MemoryModel(NamedTuple):
    """Predicts the most memory of a step.

    Attributes
    ----------
    start : float
        Bytes at which the line of the activations starts.
    slope : float
        Bytes for each padded second of a short clip.
    ratio : float
        The part of attention: how much more a second needs for each second of the longest clip.
    least : float
        Bytes of a step on the shortest clip, below which no step is.

    Example
    -------
    >>> model = MemoryModel(start=1000, slope=10, ratio=0.1, least=1100)
    >>> model.predict(BatchShape(1, 5.0)), model.predict(BatchShape(10, 10.0))
    (1100, 3000)
    """

    start: float
    slope: float
    ratio: float
    least: float

    def predict(self, shape: BatchShape) -> int:
        """Bytes at the peak of a step on a batch."""
        return round(max(self.least, self.start + self.slope * self.load(shape)))

    def load(self, shape: BatchShape) -> float:
        """The padded seconds of a batch, those of long clips with their part of attention."""
        return shape.padded_seconds * (1 + self.ratio * shape.longest_seconds)


def fit_memory(trial: Trial) -> MemoryModel:
    """Fits the model to a trial.

    Arguments
    ---------
    trial : Trial
        Has two ``steps`` at least.
    """
    ratio = attention_ratio(trial.shapes, trial.floor_bytes)
    model = MemoryModel(0.0, 0.0, ratio, trial.least_bytes)
    points = [(model.load(shape_of(step)), step.peak_bytes) for step in trial.steps]
    above = [point for point in points if point[1] > ABOVE_FLOOR * trial.least_bytes]
    # All batches are below the floor: what would be above it starts from zero activations at best.
    start, slope = line_through(above if len(above) > 1 else points)
    if slope <= 0:  # the allocator kept more from the step before than this one needs
        start = trial.floor_bytes
        slope = max(max((peak - start) / load for load, peak in points), 0.0)
    return model._replace(start=start, slope=slope)


def shape_of(step: TrialStep) -> BatchShape:
    """The size of each batch of a step, all of which are alike."""
    return BatchShape(step.clips // step.batches, step.longest_seconds)


def attention_ratio(shapes: Sequence[TrialStep], floor: float) -> float:
    """How much more a padded second needs for each second of its batch's longest clip.

    Arguments
    ---------
    shapes : sequence of TrialStep
        A step on long clips and one on short clips, or nothing.
    floor : float
        Bytes between two steps.

    Example
    -------
    >>> step = TrialStep(1, 9.0, 10.0, 1, 10.0, 0.1, 0.0, 400)
    >>> attention_ratio([step, step._replace(clips=2, longest_seconds=5.0, peak_bytes=300)], 0)
    0.1
    """
    if len(shapes) < 2:
        return 0.0
    (long, of_long), (short, of_short) = (
        (step.longest_seconds, (step.peak_bytes - floor) * step.batches / step.padded_seconds)
        for step in shapes
    )
    rise = (of_long - of_short) / (long - short)  # bytes per padded second and second
    rest = of_short - rise * short
    return rise / rest if rise > 0 and rest > 0 else 0.0


def line_through(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Start and slope of the line through the last two points: the peak is convex in the batch.

    Example
    -------
    >>> line_through([(1.0, 9.0), (2.0, 10.0), (4.0, 20.0)])
    (0.0, 5.0)
    >>> line_through([(1.0, 9.0), (1.0, 9.5)])  # of batches so small that their parts are alike
    (9.5, 0.0)
    """
    if len(points) < 2 or points[-1][0] == points[-2][0]:
        return points[-1][1], 0.0
    (x0, y0), (x1, y1) = points[-2:]
    slope = (y1 - y0) / (x1 - x0)
    return y1 - slope * x1, slope
