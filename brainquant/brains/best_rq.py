"""BEST-RQ: predict the random-projection codes of masked speech.

Shape suffixes: B batch, L samples, T feature frames, F features, S stacks (targets), N stacks of
all utterances, G codebooks, V codes.
"""

import numpy as np
import torch
import torch.nn.functional as F
from typing_extensions import override

from ..functional.transfer import to_device
from ..losses import code_cross_entropy
from ..masking import lengths_to_mask, stack_mask, true_indices
from ..models.features import pad_to_stacks, relative_lengths, stack_frames, stacks_ahead
from ..training.keys import BEST_RQ
from .pretrain import PretrainBrain


class BestRQBrain(PretrainBrain):
    """Pretrains as in Chiu et al., https://arxiv.org/abs/2202.01855.

    The features are normalised and their frames stacked for the quantiser; spans of frames are
    replaced by noise; the encoder predicts the codes of the stacks that were masked whole. Logits
    are computed for those only, unless ``unmasked_weight`` asks for the codes of the stacks that
    it sees, too, as HuBERT does with 1 - alpha (https://arxiv.org/abs/2106.07447). Unmasked targets
    are easy and are learned early; the masked ones build on them. They also train the last layers
    for frames that are not masked: an encoder is used on such frames only.

    Modules: ``quantiser``, ``normalize``, ``front_end`` (which takes one step per stack),
    ``encoder``, ``head`` (as many outputs as the quantiser's ``num_scores``).
    Hyperparameters: ``compute_features``, ``stack``, ``mask_ratio``, ``mask_length`` (feature
    frames), ``noise_mean``, ``noise_std``, ``unmasked_weight`` (0 is BEST-RQ).
    """

    hparams_read = PretrainBrain.hparams_read | BEST_RQ

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.quantiser.requires_grad_(False)  # targets do not move, whatever gives them
        self.hparams.compute_features.to(self.device)
        self.check_sizes()

    @property
    def min_samples(self):
        """The shortest clip that a span of masked frames with a target fits into."""
        hop = self.hparams.compute_features.compute_STFT.hop_length
        return (max(self.hparams.mask_length, self.hparams.stack) - 1) * hop

    def check_sizes(self):
        """Raises a ValueError that names the sizes of the YAML that do not fit."""
        stack = self.hparams.stack
        if (span := self.hparams.mask_length) < stack:
            raise ValueError(
                f"mask_length is {span} frames, but a target has stack: {stack}, so none would be "
                f"masked whole: set mask_length: to a multiple of {stack} in your YAML"
            )
        self.check_span()
        wavs_BL = torch.zeros(1, self.hparams.sample_rate // 2, device=self.device)
        feats_BTF = self.try_modules("compute_features", self.hparams.compute_features, wavs_BL)
        feats_BTF = pad_to_stacks(
            feats_BTF, torch.tensor([feats_BTF.shape[1]]).to(wavs_BL.device), stack
        )
        size = feats_BTF.shape[2]
        if size * stack != self.quantiser.input_dim:
            raise ValueError(
                f"features and quantiser do not fit: {size} features x stack {stack} = "
                f"{size * stack}, but the quantiser's input_dim is {self.quantiser.input_dim}; "
                f"set input_dim: to n_mels * stack in your YAML"
            )
        steps = self.try_modules("front_end", self.modules.front_end, feats_BTF).shape[1]
        if steps * stack != feats_BTF.shape[1]:
            raise ValueError(
                f"front_end and stack do not fit: of {feats_BTF.shape[1]} frames the front_end "
                f"makes {steps} steps, the targets are {feats_BTF.shape[1] // stack} stacks of "
                f"{stack}; set stack: to the product of the front_end's strides"
            )
        self.stacks_ahead = stacks_ahead(self.modules.front_end, size, stack)
        scores = self.quantiser.num_scores
        if (outputs := self.raw("head").w.out_features) != scores:
            raise ValueError(
                f"head and quantiser do not fit: {outputs} scores for "
                f"{self.quantiser.num_codebooks} x {self.quantiser.codebook_size} codes; set "
                f"n_neurons: !ref <quantiser.num_scores> of the head in your YAML"
            )
        frames_B = torch.tensor([feats_BTF.shape[1]])
        encoded_BSD = self.try_modules(
            "front_end and encoder", self.encode_features, feats_BTF, frames_B
        )
        self.try_modules("encoder and head", self.raw("head"), encoded_BSD)

    def features(self, wavs_BL, lengths_B):
        """Normalised features in whole stacks, zero after each utterance, and their lengths."""
        feats_BTF = self.hparams.compute_features(wavs_BL)
        hop = self.hparams.compute_features.compute_STFT.hop_length
        frames_B = (lengths_B // hop + 1).clamp(max=feats_BTF.shape[1])
        valid_B = to_device(frames_B, feats_BTF.device)
        feats_BTF = self.modules.normalize(feats_BTF, relative_lengths(valid_B, feats_BTF.shape[1]))
        return pad_to_stacks(feats_BTF, valid_B, self.hparams.stack), frames_B

    def quantiser_inputs(self, wavs_BL, lengths_B):
        """What the quantiser sees, (batch, stacks, input_dim), and the whole stacks of each."""
        feats_BTF, frames_B = self.features(wavs_BL, lengths_B)
        return stack_frames(feats_BTF, self.hparams.stack), frames_B // self.hparams.stack

    def encode_features(self, feats_BTF, frames_B):
        """The encoder's outputs, one per stack, shape (batch, stacks, dim)."""
        stack, num_frames = self.hparams.stack, feats_BTF.shape[1]
        if self.stacks_ahead:
            feats_BTF = F.pad(feats_BTF, (0, 0, 0, self.stacks_ahead * stack))
        hidden_BSD = self.modules.front_end(feats_BTF).flatten(2)[:, : num_frames // stack]
        steps_B = (frames_B + stack - 1) // stack
        return self.modules.encoder(
            hidden_BSD, to_device(steps_B / hidden_BSD.shape[1], hidden_BSD.device)
        )

    def encode(self, wavs_BL, lengths_B):
        """The encoder's outputs for unmasked audio."""
        return self.encode_features(*self.features(wavs_BL, lengths_B))

    def count_frames(self, num_samples):
        """Encoder frames of an utterance."""
        hop = self.hparams.compute_features.compute_STFT.hop_length
        return -(-(num_samples // hop + 1) // self.hparams.stack)

    def frame_times(self, num_frames):
        """Seconds at the middle of each encoder frame."""
        hop = self.hparams.compute_features.compute_STFT.hop_length / self.hparams.sample_rate
        return (np.arange(num_frames) + 0.5) * self.hparams.stack * hop - hop / 2

    def compute_forward(self, batch, stage):
        """Scores and codes of the masked and of the unmasked stacks, and what is logged."""
        wavs_BL, lengths_B = self.waveforms(batch)
        feats_BTF, frames_B = self.features(wavs_BL, lengths_B)
        codes_BSG = self.quantiser.encode(stack_frames(feats_BTF, self.hparams.stack))

        of_masks, of_noise = self.generators(stage)
        stack, num_frames, device = self.hparams.stack, feats_BTF.shape[1], feats_BTF.device
        masked_BT = self.draw_mask(frames_B, num_frames, of_masks, align=stack)
        noise_BTF = torch.randn(feats_BTF.shape, generator=of_noise, device=device)
        noise_BTF = noise_BTF * self.hparams.noise_std + self.hparams.noise_mean
        feats_BTF = torch.where(to_device(masked_BT, device)[..., None], noise_BTF, feats_BTF)

        encoded_BSD = self.encode_features(feats_BTF, frames_B)
        stacks = [stack_mask(masked_BT, stack)]
        if self.hparams.unmasked_weight > 0:
            seen_BT = lengths_to_mask(frames_B, num_frames) & ~masked_BT
            stacks.append(stack_mask(seen_BT, stack) & (not self.batch_is_empty))
        sizes = [int(stacks_BS.sum()) for stacks_BS in stacks]
        predicted_N = to_device(
            torch.cat([true_indices(stacks_BS) for stacks_BS in stacks]), device
        )
        logits_NV = self.modules.head(encoded_BSD.flatten(0, 1).index_select(0, predicted_N))
        logits_NGV = logits_NV.unflatten(1, (self.quantiser.num_codebooks, -1))
        codes_NG = codes_BSG.flatten(0, 1).index_select(0, predicted_N)
        seen = {"masked": masked_BT, "valid": frames_B, "samples": lengths_B}
        seen = {name: int(counted.sum()) for name, counted in seen.items()}
        return list(zip(logits_NGV.split(sizes), codes_NG.split(sizes))), seen

    def compute_objectives(self, predictions, batch, stage):
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
    def describe(self, values, counts_GV):
        """Also the loss of unmasked targets, where they are predicted."""
        numbers = super().describe(values, counts_GV)
        if "unmasked_loss" in values:
            targets = max(values["unmasked_targets"], 1)
            numbers["unmasked_loss"] = values["unmasked_loss"] / targets
        return numbers
