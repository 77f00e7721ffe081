"""Self-supervised pretraining on quantised targets, in SpeechBrain's way."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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


def __getattr__(name):
    # On first use: a program that imports a small part of the package does not wait for torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(".quantisers", __name__), name)
    return globals()[name]
