"""Numbers about codes: how many are in use, what they are made of, and what bf16 would change.

Shape suffixes: N frames, I inputs of the quantiser, D dim of a code, G codebooks, V codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from ..monitoring.counts import CodeMonitor, code_statistics
from ..monitoring.spectrum import effective_rank
from ..quantisers import RandomProjectionQuantizer
from ..search.nearest import nearest_code

MOST_COMPARED = 10_000  # frames whose dimension is measured, and that are encoded again
QUIET = 1e-10  # -100 dB: the power of silence


class Encoded(NamedTuple):
    """Frames of training clips and their codes, on the host."""

    inputs_NI: torch.Tensor  # what the quantiser reads
    codes_NG: torch.Tensor  # -1: no code
    power_N: torch.Tensor  # mean square of the samples of each frame
    clips: int
    seconds: float  # of speech


def facts_of(
    quantiser: Any, encoded: Encoded, device: str | torch.device = "cpu"
) -> dict[str, Any]:
    """Numbers about the codes, and about what they are made of.

    Arguments
    ---------
    quantiser : Quantiser
        Has made the codes.
    encoded : Encoded
        The frames and codes.
    device : str or torch.device
        Where the quantiser is.
    """
    monitor = CodeMonitor(quantiser.num_codebooks, quantiser.codebook_size)
    monitor.update(encoded.codes_NG)
    statistics = code_statistics(monitor.counts)
    facts: dict[str, Any] = {
        "codebooks": quantiser.num_codebooks,
        "codebook_size": quantiser.codebook_size,
        "clips": encoded.clips,
        "speech_seconds": encoded.seconds,
        **statistics,
        **loudness_of_commonest(encoded, monitor.counts),
        "input_dim": None,
        "effective_dimension": None,
        "projected_dim": None,
        "effective_projected_dimension": None,
        "flipped_by_bf16": None,
        "refine_steps": getattr(quantiser, "refine_steps", None),
    }
    finite_N = encoded.inputs_NI.isfinite().all(1) & (encoded.codes_NG >= 0).all(1)
    inputs_NI = encoded.inputs_NI[finite_N]
    if not encodes_frames(quantiser, device) or len(inputs_NI) < 2:
        return facts
    every = -(-len(inputs_NI) // MOST_COMPARED)
    inputs_NI, codes_NG = inputs_NI[::every], encoded.codes_NG[finite_N][::every]
    facts["input_dim"] = inputs_NI.shape[1]
    facts["effective_dimension"] = effective_rank(inputs_NI.numpy())
    if isinstance(quantiser, RandomProjectionQuantizer):
        projected = effective_rank(project(quantiser, inputs_NI.to(device))[0].cpu().numpy())
        facts["projected_dim"] = quantiser.cb_dim
        facts["effective_projected_dimension"] = projected
    rounded_NG = codes_in_bf16(quantiser, inputs_NI.to(device)).cpu()
    facts["flipped_by_bf16"] = float((rounded_NG != codes_NG).float().mean())
    return facts


def encodes_frames(quantiser: Any, device: str | torch.device) -> bool:
    """Whether codes are computed from frames, and not read from files."""
    try:
        quantiser.encode(torch.zeros(1, 1, quantiser.input_dim, device=device))
    except ValueError:
        return False
    return True


def project(quantiser: RandomProjectionQuantizer, x_NI: torch.Tensor) -> torch.Tensor:
    """Projected frames in the dtype of ``x_NI``, shape (codebooks, frames, code dim)."""
    P_GID = quantiser.P.view(-1, quantiser.input_dim, quantiser.cb_dim).to(x_NI)
    projected_GND = x_NI @ P_GID
    return projected_GND if quantiser.shift is None else projected_GND + quantiser.shift.to(x_NI)


def codes_in_bf16(quantiser: Any, x_NI: torch.Tensor) -> torch.Tensor:
    """Codes of inputs that bf16 has rounded, shape (frames, codebooks).

    A random projection is computed in bf16 too, as SpeechBrain's quantiser does under autocast.
    (This package computes codes in float32 in any precision.)
    """
    if not isinstance(quantiser, RandomProjectionQuantizer):
        return quantiser.encode(x_NI.bfloat16().float()[None])[0]
    units_GND = F.normalize(project(quantiser, x_NI.bfloat16()).float(), dim=-1)
    codebooks_GVD = quantiser.CB.view(-1, quantiser.cb_vocab, quantiser.cb_dim).float()
    return torch.stack(list(map(nearest_code, units_GND, codebooks_GVD)), -1)


def loudness_of_commonest(encoded: Encoded, counts_GV: torch.Tensor) -> dict[str, float | None]:
    """The median power in dB of the frames with the first codebook's commonest code, and of others.

    Their difference says whether that code means silence.
    """
    level_N = 10 * encoded.power_N.clamp(min=QUIET).log10()
    with_code_N = encoded.codes_NG[:, 0] == int(counts_GV[0].argmax())
    return {
        name: float(level_N[is_one_N].median()) if is_one_N.any() else None
        for name, is_one_N in (("commonest_db", with_code_N), ("others_db", ~with_code_N))
    }


def lines_of(facts: Mapping[str, Any]) -> list[str]:
    """The facts for a reader."""
    books, size = facts["codebooks"], facts["codebook_size"]
    mean, cap = facts["code_perplexity_sum"] / books, facts["perplexity_cap"]
    each = f" in each of {books} codebooks" if books > 1 else ""
    lines = [
        f"sample      {facts['frames']:,} frames of {facts['clips']:,} clips",
        f"perplexity  {mean:,.0f} of {size:,} codes{each}; at most {cap:,} here",
        f"dead codes  {facts['dead_codes'] / books:,.0f} of {size:,}; the commonest code has "
        f"{facts['commonest_code']:.1%} of the frames",
    ]
    if facts["fit_frames"]:
        lines[0] += f"; fitted to {facts['fit_frames']:,} frames"
    if facts["effective_dimension"] is None:
        return [*lines, "dimension   of no meaning: these codes are read from files"]
    text = f"{facts['effective_dimension']:.1f} of {facts['input_dim']} inputs are effective"
    if facts["projected_dim"]:
        text += (
            f"; {facts['effective_projected_dimension']:.1f} of {facts['projected_dim']} projected"
        )
    lines += [
        f"dimension   {text}",
        f"bf16        would change {facts['flipped_by_bf16']:.2%} of the codes; they are computed "
        f"in float32",
    ]
    if facts["refine_steps"]:
        steps = ", ".join(map(str, facts["refine_steps"]))
        lines.append(f"later       the codebook is refined at the steps {steps}")
    return lines
