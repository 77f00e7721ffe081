"""What a trial of a recipe finds: the time and the memory of real optimiser steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .capacity import Capacity

LISTS = ("shapes", "steps", "pace")  # of TrialStep, in a Trial


class TrialStep(NamedTuple):
    """An optimiser step of a trial.

    Attributes
    ----------
    batches : int
        Its batches: ``grad_accumulation_factor`` of the recipe, or fewer.
    speech_seconds : float
        Seconds of speech in all of its batches.
    padded_seconds : float
        The same with padding.
    clips : int
        Clips of all of its batches.
    longest_seconds : float
        The longest clip.
    seconds : float
        Time of the step, without reading.
    reading_seconds : float
        Time in which one process read and decoded the clips.
    peak_bytes : int
        The most memory of the process, or of the GPU, in the step.
    """

    batches: int
    speech_seconds: float
    padded_seconds: float
    clips: int
    longest_seconds: float
    seconds: float
    reading_seconds: float
    peak_bytes: int


class Trial(NamedTuple):
    """What a trial found.

    Attributes
    ----------
    device : str
        As torch names it: ``cpu``, ``cuda:0``.
    threads : int
        Threads of torch.
    parameters : int
        Parameters that are trained.
    accumulation : int
        ``grad_accumulation_factor`` of the recipe.
    floor_bytes : int
        Memory between two steps: the program, the parameters and the optimiser's state.
    least_bytes : int
        The most memory of a step on the shortest clip.
    shapes : list of TrialStep
        Two steps of as many padded seconds, the second of shorter clips: what the length of a clip
        costs. Empty if all clips are of one length.
    steps : list of TrialStep
        Steps of one batch, or of two if the recipe accumulates, the largest last. Each ends a
        series of batches of one size, and its ``peak_bytes`` are those of the series. If a share of
        the run's batches might not fit, these are steps on few clips.
    pace : list of TrialStep
        Steps of the recipe's own batches in their order, for the time. The first one is left out,
        since it warms up. Empty if there was no time or no memory for them.
    before_steps_bytes : int
        The most memory before the first step, in which the quantiser is fitted.
    before_steps_seconds : float
        How long that took.
    capacity : Capacity or None
        The memory for the run when the trial began; None if the system does not say.
    """

    device: str
    threads: int
    parameters: int
    accumulation: int
    floor_bytes: int
    least_bytes: int
    shapes: list[TrialStep]
    steps: list[TrialStep]
    pace: list[TrialStep]
    before_steps_bytes: int
    before_steps_seconds: float
    capacity: Capacity | None

    def to_json(self) -> dict[str, Any]:
        """The trial as values of JSON."""
        values = self._asdict()
        capacity = self.capacity and self.capacity._asdict()
        lists = {name: [step._asdict() for step in values[name]] for name in LISTS}
        return {**values, **lists, "capacity": capacity}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Trial:
        """The trial of ``to_json``."""
        lists = {name: [TrialStep(**step) for step in values[name]] for name in LISTS}
        capacity = values["capacity"] and Capacity(**values["capacity"])
        return cls(**{**values, **lists, "capacity": capacity})
