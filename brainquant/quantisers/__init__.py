"""Quantisers: one file each, and the contract that they all keep."""

from .adapter import LibraryQuantizer
from .base import Clips, Quantiser, make_quantiser
from .gumbel import GumbelVectorQuantizer
from .kmeans import KMeansQuantizer
from .online_codebooks import OnlineCodebooks
from .random_projection import RandomProjectionQuantizer
from .refined_projection import RefinedProjectionQuantizer
from .vector import VectorQuantizer

__all__ = [
    "Clips",
    "GumbelVectorQuantizer",
    "KMeansQuantizer",
    "LibraryQuantizer",
    "OnlineCodebooks",
    "Quantiser",
    "RandomProjectionQuantizer",
    "RefinedProjectionQuantizer",
    "VectorQuantizer",
    "make_quantiser",
]
