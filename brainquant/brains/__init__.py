"""Brains: pretrain.py masks, fits and anneals; best_rq.py, online_codebooks.py, wav2vec2.py
and ctc.py say forward and objective.
"""

from .best_rq import BestRQBrain
from .ctc import CTCBrain, write_error_rates
from .online_codebooks import OnlineCodebooksBrain
from .pretrain import PretrainBrain
from .wav2vec2 import Wav2Vec2Brain

__all__ = [
    "BestRQBrain",
    "CTCBrain",
    "OnlineCodebooksBrain",
    "PretrainBrain",
    "Wav2Vec2Brain",
    "write_error_rates",
]
