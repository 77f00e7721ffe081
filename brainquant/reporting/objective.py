"""What a run learns, from its keys and its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

OBJECTIVES = {
    "BestRQBrain": "BEST-RQ",
    "Wav2Vec2Brain": "wav2vec 2.0",
    "OnlineCodebooksBrain": "online codebooks",
    "CTCBrain": "CTC fine-tuning",
}
MASKED = "masked prediction"  # BEST-RQ's objective with a public model and other codes
UNKNOWN = "unknown"
MOST_CODES = 2**20  # of a codebook; more are damage
STOCK = "BEST-RQ, SpeechBrain's recipe"


def objective_of(values: Mapping[str, str]) -> str:
    """The objective of a run, from the values of its YAML.

    Example
    -------
    >>> objective_of({"brain_class": "!name:brainquant.brains.Wav2Vec2Brain"})
    'wav2vec 2.0'
    """
    brain = values.get("brain_class", "").rpartition(".")[2]
    if not brain:
        return STOCK if {"CNN", "wrapper", "normalize"} <= values.keys() else UNKNOWN
    if brain == "BestRQBrain" and ":brainquant.huggingface." in values.get("encoder", ""):
        return MASKED
    return OBJECTIVES.get(brain, brain)


def codebooks_of(points: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """How many codebooks a run has, and how many codes each, from its log.

    Returns
    -------
    codebooks, codes : int
        Zero if the log has no codes.

    Example
    -------
    >>> point = {"code_perplexity": [9.0, 8.0], "perplexity_cap": 16}
    >>> codebooks_of([point]), codebooks_of([{**point, "dead_codes": 3, "code_usage": 0.95}])
    ((2, 16), (2, 30))
    """
    codebooks = codes = 0
    for point in points:
        perplexities = point.get("code_perplexity")
        if not isinstance(perplexities, list):
            continue
        codebooks = len(perplexities)
        used, dead = point.get("code_usage"), point.get("dead_codes")
        if isinstance(used, float) and isinstance(dead, (int, float)) and 0 <= used < 1:
            counted = dead / (1 - used) / codebooks  # exact, but for the rounding of the share
        else:
            counted = point.get("perplexity_cap")  # at most as many as there were frames
        if isinstance(counted, (int, float)) and 0 < counted <= MOST_CODES:  # no NaN
            codes = max(codes, round(counted))
    return codebooks, codes
