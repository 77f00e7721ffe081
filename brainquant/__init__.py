"""Self-supervised pretraining on quantised targets, in SpeechBrain's way."""

import importlib
from typing import TYPE_CHECKING

from . import old_addresses

if TYPE_CHECKING:
    from .inference import load_pretrained
    from .quantisers import (
        GumbelVectorQuantizer,
        KMeansQuantizer,
        LibraryQuantizer,
        OnlineCodebooks,
        RandomProjectionQuantizer,
        RefinedProjectionQuantizer,
        VectorQuantizer,
    )

__all__ = [
    "GumbelVectorQuantizer",
    "KMeansQuantizer",
    "LibraryQuantizer",
    "OnlineCodebooks",
    "RandomProjectionQuantizer",
    "RefinedProjectionQuantizer",
    "VectorQuantizer",
    "load_pretrained",
]
__version__ = "0.1.0"
old_addresses.install()


def __getattr__(name: str) -> object:
    # On first use, so that a program that needs a small part of the package does not import torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = ".inference" if name == "load_pretrained" else ".quantisers"
    globals()[name] = getattr(importlib.import_module(room, __name__), name)
    return globals()[name]
