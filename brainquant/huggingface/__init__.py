"""Models of transformers, held inside our Brains: wav2vec 2.0, HuBERT, WavLM, data2vec."""

from .continuing import Wav2Vec2Parts, load_encoder, load_wav2vec2
from .encoder import HuggingFaceEncoder

__all__ = ["HuggingFaceEncoder", "Wav2Vec2Parts", "load_encoder", "load_wav2vec2"]
