"""Targets that are not made of the encoder's own inputs: quantisers for masked prediction."""

from .teacher import TeacherCodes

__all__ = ["TeacherCodes"]
