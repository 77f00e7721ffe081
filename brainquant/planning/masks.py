"""What the masks of a run hide of clips of some lengths, and which targets then count.

Shape suffixes: B clips, T frames, S targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..brains.pretrain import PretrainBrain
from ..brains.wav2vec2 import Wav2Vec2Brain
from ..masking import lengths_to_mask, stack_mask
from ..training.randomness import derived_generator
from .section import Finding

MASKED_SECONDS = (1, 3, 10, 20)  # lengths of clip whose masks are drawn
CLIPS_DRAWN = 256  # of each length
FAR_FROM_RATIO = 0.25  # a share of targets that is off by so much of mask_ratio
MANY_WITHOUT = 0.1  # of clips


def masked_shares(brain: PretrainBrain, hparams: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For clips of some lengths, the shares of frames that are masked and of targets that count.

    The Brain draws the masks of clips of each length. A target counts if all of its frames are
    masked. Clips that the loader leaves out, for their length, have ``left_out`` instead: why.
    """
    encoder, rate = brain.raw("encoder"), hparams["sample_rate"]
    # BEST-RQ's targets are stacks of feature frames, wav2vec 2.0's are encoder frames.
    stack = 1 if isinstance(brain, Wav2Vec2Brain) else encoder.stack
    longest, least = hparams["max_seconds"], max(hparams["min_seconds"], brain.min_samples / rate)
    generator = derived_generator("cpu", hparams["seed"], "the plan's masks")
    shares = []
    for seconds in MASKED_SECONDS:
        if not least <= seconds <= longest:
            why = f"below {least:g} s" if seconds < least else f"above max_seconds {longest:g}"
            shares.append({"seconds": seconds, "left_out": why})
            continue
        lengths_B = torch.full((CLIPS_DRAWN,), round(seconds * rate))
        num_frames = int(encoder.count_frames(lengths_B[:1])) * stack
        frames_B = encoder.count_frames(lengths_B)
        if stack > 1:
            frames_B = encoder.count_feature_frames(lengths_B)
        masked_BT = brain.draw_mask(frames_B, num_frames, generator, align=stack)
        valid_BS = stack_mask(lengths_to_mask(frames_B, num_frames), stack)
        targets_BS = stack_mask(masked_BT, stack)
        shares.append({
            "seconds": seconds,
            "frames": float(masked_BT.sum() / frames_B.sum()),
            "targets": float(targets_BS.sum() / valid_BS.sum()),
            "clips_without": float((~targets_BS.any(1)).float().mean()),
        })  # fmt: skip
    return shares


def lines_of_masks(shares: list[dict[str, Any]]) -> list[str]:
    """The shares for a reader."""
    drawn = [s for s in shares if "left_out" not in s]
    lines = [
        f"{label:12}" + ", ".join(f"{s[name]:.2f} of {s['seconds']} s" for s in drawn)
        for label, name in (("masked", "frames"), ("targets", "targets"))
        if drawn
    ]
    left_out = [f"clips of {s['seconds']} s ({s['left_out']})" for s in shares if "left_out" in s]
    return [*lines, *(f"left out    {text}" for text in left_out)]


def find_in_masks(
    brain: PretrainBrain, hparams: Mapping[str, Any], shares: list[dict[str, Any]]
) -> list[Finding]:
    """What is wrong with the masks, the worst first; see ``masked_shares``."""
    ratio, span = hparams["mask_ratio"], hparams["mask_length"]
    drawn = [s for s in shares if "left_out" not in s]
    stack = 1 if isinstance(brain, Wav2Vec2Brain) else brain.raw("encoder").stack
    findings = []
    if rest := span % stack:
        text = (
            f"mask_length {span} is no multiple of stack {stack}: at least {rest} of {span} masked "
            f"frames are in no target that counts"
        )
        remedy = f"set mask_length: {span - rest + (stack if rest > stack / 2 else 0)}"
        findings.append(Finding("spans_cut_targets", text, remedy))
    if not drawn:
        return findings
    shortest, share = f"of clips of {drawn[0]['seconds']} s,", drawn[0]["targets"]
    if not rest and abs(share - ratio) > FAR_FROM_RATIO * ratio:
        text = f"{shortest} {share:.2f} of the targets are masked, not mask_ratio {ratio:g}"
        remedy = f"set mask_length: below {span}, or min_seconds: higher"
        findings.append(Finding("masked_of_short_clips", text, remedy))
    if (without := drawn[0]["clips_without"]) > MANY_WITHOUT:
        text = f"{shortest} {without:.0%} have no masked target: a step learns nothing of them"
        remedy = "set mask_length: lower, mask_ratio: higher, or min_seconds: higher"
        findings.append(Finding("clips_without_targets", text, remedy))
    return findings
