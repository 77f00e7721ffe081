"""Targets that are not made of the encoder's own inputs: quantisers for masked prediction."""

from .file_codes import FileCodes
from .teacher import TeacherCodes

__all__ = ["FileCodes", "TeacherCodes"]
