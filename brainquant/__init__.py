"""Self-supervised pretraining on quantised targets, in SpeechBrain's way."""

from .quantisers import (
    GumbelVectorQuantizer,
    KMeansQuantizer,
    LibraryQuantizer,
    RandomProjectionQuantizer,
    VectorQuantizer,
)

__all__ = [
    "GumbelVectorQuantizer",
    "KMeansQuantizer",
    "LibraryQuantizer",
    "RandomProjectionQuantizer",
    "VectorQuantizer",
]
__version__ = "0.1.0"
