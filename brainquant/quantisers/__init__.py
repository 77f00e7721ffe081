"""Quantisers: one file each, and the contract that they all keep."""

from .base import Quantiser, make_quantiser
from .gumbel import GumbelVectorQuantizer
from .random_projection import RandomProjectionQuantizer

__all__ = ["GumbelVectorQuantizer", "Quantiser", "RandomProjectionQuantizer", "make_quantiser"]
