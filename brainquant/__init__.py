"""Self-supervised pretraining on quantised targets, in SpeechBrain's way."""

from .quantisers import GumbelVectorQuantizer, RandomProjectionQuantizer

__all__ = ["GumbelVectorQuantizer", "RandomProjectionQuantizer"]
__version__ = "0.1.0"
