"""Speech encoders, and the layers and features that they are made of."""

from .extractor import Wav2Vec2Extractor
from .layers import ChannelsLastConv2d, DynamicChunkEncoder, MaskingEncoder

__all__ = [
    "ChannelsLastConv2d",
    "DynamicChunkEncoder",
    "MaskingEncoder",
    "Wav2Vec2Extractor",
]
