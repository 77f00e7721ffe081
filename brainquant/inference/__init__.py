"""Trained encoders: opens them, and gives their features, codes and units."""

from .loading import load_pretrained
from .pretrained import Codes, Hidden, PretrainedEncoder, Units

__all__ = ["Codes", "Hidden", "PretrainedEncoder", "Units", "load_pretrained"]
