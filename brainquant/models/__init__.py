"""Speech encoders, and the layers and features that they are made of."""

# ruff: noqa: E402, since SpeechBrain needs a torchaudio that loads

from ..functional.imports import check_torchaudio

check_torchaudio()

from .best_rq import BestRQEncoder
from .extractor import Wav2Vec2Extractor
from .features import InputNormalization
from .heads import LayerHeads
from .layers import ChannelsLastConv2d, DynamicChunkEncoder, MaskingEncoder
from .moving_teacher import MovingTeacher
from .quick import quicken
from .speech_encoder import Encoded, SpeechEncoder
from .wav2vec2 import Wav2Vec2Encoder

__all__ = [
    "BestRQEncoder",
    "ChannelsLastConv2d",
    "DynamicChunkEncoder",
    "Encoded",
    "InputNormalization",
    "LayerHeads",
    "MaskingEncoder",
    "SpeechEncoder",
    "MovingTeacher",
    "Wav2Vec2Encoder",
    "Wav2Vec2Extractor",
    "quicken",
]
