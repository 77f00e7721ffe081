"""A trial of a recipe: real optimiser steps in a process of their own, and what they needed."""

from __future__ import annotations

from typing import Any, NamedTuple


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
        Parameters of all modules that are trained.
    floor_bytes : int
        Memory between two steps: the program, the parameters and the optimiser's state.
    steps : list of TrialStep
        Small steps, for the memory: of one batch, or of two if the recipe accumulates; the largest
        comes last.
    pace : list of TrialStep
        Steps of the recipe's own batches in their order, for the time; the first ones, in which
        everything is warmed up, are left out. Empty if there was no time for one.
    before_steps_bytes : int
        The most memory before the first step, in which the quantiser is fitted.
    before_steps_seconds : float
        How long that took.
    """

    device: str
    threads: int
    parameters: int
    floor_bytes: int
    steps: list[TrialStep]
    pace: list[TrialStep]
    before_steps_bytes: int
    before_steps_seconds: float

    def to_json(self) -> dict[str, Any]:
        """The trial as values of JSON."""
        values = self._asdict()
        return {**values, **{n: [s._asdict() for s in values[n]] for n in ("steps", "pace")}}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Trial:
        """The trial of ``to_json``."""
        lists = {name: [TrialStep(**step) for step in values[name]] for name in ("steps", "pace")}
        return cls(**{**values, **lists})
