"""BEST-RQ: predict the codes of masked speech.

Shape suffixes: B batch, L samples, T feature frames, F features, S stacks (targets), N stacks of
all utterances, G codebooks, V codes.
"""

from __future__ import annotations

from typing import Any

import torch
from speechbrain import Stage
from typing_extensions import override

from ..functional.transfer import to_device
from ..losses import code_cross_entropy
from ..masking import lengths_to_mask, stack_mask, true_indices
from ..models.speech_encoder import try_modules
from ..quantisers import Clips
from ..training.keys import BEST_RQ
from .pretrain import PretrainBrain


class BestRQBrain(PretrainBrain):
    """Pretrains as in Chiu et al., https://arxiv.org/abs/2202.01855.

    The features are normalised, and their frames are stacked for the quantiser. Noise replaces
    spans of frames, and the encoder predicts the codes of the stacks that are masked whole.
    Logits are computed for these only. An encoder without ``noise_dim``, such as HuBERT, puts a
    vector of its own where its frames are masked.

    With ``unmasked_weight`` above 0 the encoder also predicts the codes of unmasked stacks, as
    HuBERT does with 1 - alpha (https://arxiv.org/abs/2106.07447). Unmasked targets are easy and
    are learned early; the masked ones build on them. They also train the last layers on unmasked
    frames, the only ones that an encoder is used on later.

    Modules: ``quantiser``, ``encoder`` (a ``BestRQEncoder`` or a ``HuggingFaceEncoder``), ``head``
    (as many outputs as the quantiser's ``num_scores``).
    Hyperparameters: ``mask_ratio``, ``mask_length`` (feature frames), ``noise_mean``,
    ``noise_std``, ``unmasked_weight`` (0 is BEST-RQ).
    """

    hparams_read = PretrainBrain.hparams_read | BEST_RQ

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quantiser.requires_grad_(False)  # the targets do not move, whatever makes them
        self.check_sizes()

    @property
    @override
    def min_samples(self) -> int:
        """Samples of the shortest clip that holds a masked span with a target."""
        encoder = self.raw("encoder")
        return encoder.samples_of_frames(max(self.hparams.mask_length, encoder.stack))

    def check_sizes(self) -> None:
        """Raises a ValueError that names the sizes of the YAML that do not fit."""
        encoder, head = self.raw("encoder"), self.raw("head")
        stack = encoder.stack
        if (span := self.hparams.mask_length) < stack:
            raise ValueError(
                f"mask_length is {span} frames, but a target has stack: {stack}, so none would be "
                f"masked whole: set mask_length: to a multiple of {stack} in your YAML"
            )
        self.check_span()
        self.quantiser.check_encoder(encoder)
        if (outputs := head.w.out_features) != self.quantiser.num_scores:
            raise ValueError(
                f"head and quantiser do not fit: {outputs} scores for "
                f"{self.quantiser.num_codebooks} x {self.quantiser.codebook_size} codes; set "
                f"n_neurons: !ref <quantiser.num_scores> of the head in your YAML"
            )
        hidden_BSD = torch.zeros(1, 1, encoder.dim, device=self.device)
        try_modules("encoder and head", head, hidden_BSD)

    @override
    def compute_forward(self, batch: Any, stage: Stage) -> Any:
        """Scores and codes of the masked and of the unmasked stacks, and the sums for the log."""
        wavs_BL, lengths_B = self.waveforms(batch)
        encoder, device = self.raw("encoder"), wavs_BL.device
        stack = encoder.stack
        frames_B = encoder.count_feature_frames(lengths_B)
        num_frames = encoder.count_frames(wavs_BL.shape[1]) * stack

        of_masks, of_noise = self.generators(stage)
        masked_BT = self.draw_mask(frames_B, num_frames, of_masks, align=stack)
        # DistributedDataParallel would wait for the device to move what is on the host.
        inputs = [wavs_BL, to_device(lengths_B, device), to_device(masked_BT, device)]
        if encoder.noise_dim is not None:
            shape = (*masked_BT.shape, encoder.noise_dim)
            noise_BTF = torch.randn(shape, generator=of_noise, device=device)
            inputs.append(noise_BTF * self.hparams.noise_std + self.hparams.noise_mean)
        with self.trains_encoder(stage):
            encoded = self.modules["encoder"](*inputs)
        codes_BSG = self.quantiser.encode_clips(
            Clips(getattr(batch, "id", []), wavs_BL, lengths_B, encoded.inputs_BTI)
        )

        stacks = [stack_mask(masked_BT, stack)]
        if self.hparams.unmasked_weight > 0:
            unmasked_BT = lengths_to_mask(frames_B, num_frames) & ~masked_BT
            stacks.append(stack_mask(unmasked_BT, stack) & (not self.batch_is_empty))
        sizes = [int(stacks_BS.sum()) for stacks_BS in stacks]
        predicted_N = to_device(
            torch.cat([true_indices(stacks_BS) for stacks_BS in stacks]), device
        )
        hidden_ND = encoded.hidden_BTD.flatten(0, 1).index_select(0, predicted_N)
        logits_NGV = self.modules["head"](hidden_ND).unflatten(
            1, (self.quantiser.num_codebooks, -1)
        )
        codes_NG = codes_BSG.flatten(0, 1).index_select(0, predicted_N)
        seen = {"masked": masked_BT, "valid": frames_B, "samples": lengths_B}
        seen = {name: int(counted.sum()) for name, counted in seen.items()}
        return list(zip(logits_NGV.split(sizes), codes_NG.split(sizes))), seen

    @override
    def compute_objectives(self, predictions: Any, batch: Any, stage: Stage) -> torch.Tensor:
        """Cross-entropy per masked target, in nats, and the weighted one per unmasked target."""
        ((logits_NGV, codes_NG), *unmasked), seen = predictions
        loss, correct, targets = code_cross_entropy(logits_NGV, codes_NG)
        objective = loss / targets.clamp(min=1)
        for logits_NGV, unmasked_NG in unmasked:
            loss_sum, _, num_targets = code_cross_entropy(logits_NGV, unmasked_NG)
            weight = self.hparams.unmasked_weight
            objective = objective + weight * loss_sum / num_targets.clamp(min=1)
            seen = {**seen, "unmasked_loss": loss_sum, "unmasked_targets": num_targets}
        self.observe(stage, codes_NG, loss=loss, correct=correct, targets=targets, **seen)
        return objective

    @override
    def describe(self, values: dict[str, float], counts_GV: torch.Tensor) -> dict[str, float]:
        """Also the loss of unmasked targets, where they are predicted."""
        numbers = super().describe(values, counts_GV)
        if "unmasked_loss" in values:
            targets = max(values["unmasked_targets"], 1)
            numbers["unmasked_loss"] = values["unmasked_loss"] / targets
        return numbers
