"""A trial of a recipe: real optimiser steps in a process of their own."""

from __future__ import annotations

from .trial_steps import Trial, TrialStep

__all__ = ["Trial", "TrialStep"]
