"""Brains: watched.py logs a pretraining, base.py anneals, the others say forward and objective."""

from .base import PretrainBrain
from .best_rq import BestRQBrain
from .wav2vec2 import Wav2Vec2Brain

__all__ = ["BestRQBrain", "PretrainBrain", "Wav2Vec2Brain"]
