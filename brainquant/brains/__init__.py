"""Brains: logged.py keeps the log of all, watched.py what codes do, base.py anneals; best_rq.py and
wav2vec2.py say forward and objective.

Fine-tuning: speech_encoder.py takes what was pretrained, ctc.py trains it, error_rates.py logs.
"""

from ..models.speech_encoder import SpeechEncoder, load_encoder
from .best_rq import BestRQBrain
from .ctc import CTCBrain, write_error_rates
from .pretrain import PretrainBrain
from .wav2vec2 import Wav2Vec2Brain

__all__ = [
    "BestRQBrain",
    "CTCBrain",
    "PretrainBrain",
    "SpeechEncoder",
    "Wav2Vec2Brain",
    "load_encoder",
    "write_error_rates",
]
