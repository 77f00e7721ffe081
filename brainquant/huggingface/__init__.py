"""Models of transformers, held inside our Brains, from wav2vec 2.0 to w2v-BERT 2.0."""

from .bert_encoder import W2vBertEncoder
from .continuing import Wav2Vec2Parts, load_encoder, load_wav2vec2
from .encoder import HuggingFaceEncoder
from .target_choice import make_targets

__all__ = [
    "HuggingFaceEncoder",
    "W2vBertEncoder",
    "Wav2Vec2Parts",
    "load_encoder",
    "load_wav2vec2",
    "make_targets",
]
