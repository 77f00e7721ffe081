"""What the Brains that predict the codes of masked frames share.

Shape suffixes: B batch, L samples, T feature frames, F features, S stacks (targets), N stacks of
all utterances, G codebooks, V codes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from speechbrain import Stage

from ..functional.transfer import to_device
from ..losses import code_cross_entropy
from ..masking import lengths_to_mask, stack_mask, true_indices
from .pretrain import PretrainBrain

# Scores and codes of the masked stacks, and of the unmasked ones if they are predicted; and sums.
Predictions = tuple[list[tuple[torch.Tensor, torch.Tensor]], dict[str, float]]


class MaskedBatch(NamedTuple):
    """A batch with its masks."""

    wavs_BL: torch.Tensor
    lengths_B: torch.Tensor  # samples, on the host
    frames_B: torch.Tensor  # feature frames, on the host
    inputs: list[torch.Tensor]  # of the encoder's forward
    valid_BS: torch.Tensor  # the whole stacks of each utterance, on the host
    predicted_N: torch.Tensor  # indices of the stacks to predict: masked, then unmasked
    sizes: list[int]  # how many of them are masked, and how many not
    generator: torch.Generator  # for further draws on the device
    seen: dict[str, float]  # sums for the log


def mask_batch(brain: PretrainBrain, batch: Any, stage: Stage) -> MaskedBatch:
    """Draws the masks of a batch, and the noise of an encoder that takes some."""
    hparams: Any = brain.hparams
    wavs_BL, lengths_B = brain.waveforms(batch)
    encoder, device = brain.raw("encoder"), wavs_BL.device
    stack = encoder.stack
    frames_B = encoder.count_feature_frames(lengths_B)
    num_frames = encoder.count_frames(wavs_BL.shape[1]) * stack

    of_masks, of_noise = brain.generators(stage)
    masked_BT = brain.draw_mask(frames_B, num_frames, of_masks, align=stack)
    # DistributedDataParallel would wait for the device to move what is on the host.
    inputs = [wavs_BL, to_device(lengths_B, device), to_device(masked_BT, device)]
    if encoder.noise_dim is not None:
        shape = (*masked_BT.shape, encoder.noise_dim)
        noise_BTF = torch.randn(shape, generator=of_noise, device=device)
        inputs.append(noise_BTF * hparams.noise_std + hparams.noise_mean)

    valid_BT = lengths_to_mask(frames_B, num_frames) & (not brain.batch_is_empty)
    stacks = [stack_mask(masked_BT, stack)]
    if hparams.unmasked_weight > 0:
        stacks.append(stack_mask(valid_BT & ~masked_BT, stack))
    predicted_N = torch.cat([true_indices(stacks_BS) for stacks_BS in stacks])
    seen = {"masked": masked_BT, "valid": frames_B, "samples": lengths_B}
    return MaskedBatch(
        wavs_BL,
        lengths_B,
        frames_B,
        inputs,
        stack_mask(valid_BT, stack),
        to_device(predicted_N, device),
        [int(stacks_BS.sum()) for stacks_BS in stacks],
        of_noise,
        {name: int(counted.sum()) for name, counted in seen.items()},
    )


def code_objective(brain: PretrainBrain, predictions: Predictions, stage: Stage) -> torch.Tensor:
    """Cross-entropy per masked target, in nats, and the weighted one per unmasked target."""
    hparams: Any = brain.hparams
    ((logits_NGV, codes_NG), *unmasked), seen = predictions
    loss, correct, targets = code_cross_entropy(logits_NGV, codes_NG)
    objective = loss / targets.clamp(min=1)
    for logits_NGV, unmasked_NG in unmasked:
        loss_sum, _, num_targets = code_cross_entropy(logits_NGV, unmasked_NG)
        objective = objective + hparams.unmasked_weight * loss_sum / num_targets.clamp(min=1)
        seen = {**seen, "unmasked_loss": loss_sum, "unmasked_targets": num_targets}
    brain.observe(stage, codes_NG, loss=loss, correct=correct, targets=targets, **seen)
    return objective


def unmasked_numbers(values: dict[str, float]) -> dict[str, float]:
    """The loss of unmasked targets, where they are predicted, for the log."""
    if "unmasked_loss" not in values:
        return {}
    return {"unmasked_loss": values["unmasked_loss"] / max(values["unmasked_targets"], 1)}


def check_masks(brain: PretrainBrain) -> None:
    """Raises a ValueError if no target would be masked whole, or no clip is long enough."""
    hparams: Any = brain.hparams
    stack = brain.raw("encoder").stack
    if (span := hparams.mask_length) < stack:
        raise ValueError(
            f"mask_length is {span} frames, but a target has stack: {stack}, so none would be "
            f"masked whole: set mask_length: to a multiple of {stack} in your YAML"
        )
    brain.check_span()


def shortest_clip(brain: PretrainBrain) -> int:
    """Samples of the shortest clip that holds a masked span with a target."""
    hparams: Any = brain.hparams
    encoder = brain.raw("encoder")
    return encoder.samples_of_frames(max(hparams.mask_length, encoder.stack))
