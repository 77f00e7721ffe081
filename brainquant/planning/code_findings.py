"""What the codes of a run show before its training that will go wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..monitoring.health import MIN_PERPLEXITY
from ..quantisers import RandomProjectionQuantizer
from .section import Finding

FEW_CODES = 0.1  # of the perplexity that the sample allows
FREQUENT = 0.25  # of all frames
QUIETER_DB = 15  # than the median of other frames: silence
FLAT = 0.5  # of the dimensions of a code
DEAD, ENOUGH_FRAMES = 0.5, 20  # of the codes; frames for each of them
START_DIFFERENTLY = "set kmeans_init: False under make_quantiser:, or take another fragment"


def find_in_codes(facts: Mapping[str, Any], brain: Any) -> list[Finding]:
    """What is wrong with codes, the worst first.

    Arguments
    ---------
    facts : dict
        Of ``brainquant.planning.code_facts``.
    brain : PretrainBrain
        Has the quantiser and the encoder.
    """
    return list(_found(facts, brain.quantiser, _more_codes(brain)))


def _found(facts: Mapping[str, Any], quantiser: Any, remedy: str) -> Iterator[Finding]:
    lowest, cap = min(facts["code_perplexity"]), facts["perplexity_cap"]
    size, commonest = facts["codebook_size"], facts["commonest_code"]
    if lowest < min(MIN_PERPLEXITY, (1 + cap) / 2):
        yield Finding(
            "codes_collapsed",
            f"nearly all frames have one code before the training (perplexity {lowest:.1f} of "
            f"{cap:,})",
            START_DIFFERENTLY if hasattr(quantiser, "library") else remedy,
        )
    elif lowest < FEW_CODES * cap:
        yield Finding(
            "few_codes",
            f"few codes are in use: perplexity {lowest:.0f} of {cap:,}",
            remedy,
        )
    if FREQUENT < commonest and lowest >= MIN_PERPLEXITY:
        level, others = facts["commonest_db"], facts["others_db"]
        quiet = None not in (level, others) and level < others - QUIETER_DB
        yield Finding(
            "frequent_code",
            f"one code has {commonest:.0%} of the frames"
            + (f", which are silence ({level:.0f} dB)" if quiet else ""),
            "cut the silence out of the clips" if quiet else remedy,
        )
    projected, dim = facts["effective_projected_dimension"], facts["projected_dim"]
    if dim and dim > 2 and projected < FLAT * dim:
        yield Finding(
            "flat_projection",
            f"projected frames vary in {projected:.1f} of {dim} directions: the codes say little "
            f"but loudness",
            "set whiten: True under make_quantiser:",
        )
    dead = facts["dead_codes"] / facts["codebooks"] / size
    if dead > DEAD and facts["frames"] >= ENOUGH_FRAMES * size and lowest >= FEW_CODES * cap:
        yield Finding("dead_codes", f"{dead:.0%} of the codes are never used", remedy)


def _more_codes(brain: Any) -> str:
    """What brings more codes into use."""
    quantiser, encoder = brain.quantiser, brain.raw("encoder")
    if not isinstance(quantiser, RandomProjectionQuantizer):
        return "take whitened_projection.yaml of hparams/quantisers as make_quantiser:"
    if quantiser.shift is not None:
        return "take refined_projection.yaml of hparams/quantisers, or set cb_vocab: lower"
    remedy = "set whiten: True under make_quantiser:"
    if getattr(getattr(encoder, "normalize", None), "norm_type", "sentence") != "sentence":
        remedy += ", or norm_type: sentence under normalize:"
    return remedy
