"""Brains: base.py runs and watches a pretraining, the others add forward and objective."""

from .base import PretrainBrain
from .best_rq import BestRQBrain
from .wav2vec2 import Wav2Vec2Brain

__all__ = ["BestRQBrain", "PretrainBrain", "Wav2Vec2Brain"]
