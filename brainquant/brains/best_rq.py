"""BEST-RQ: predict the random-projection codes of masked speech.

Shape suffixes: B batch, L samples, T feature frames, F features, S stacks (targets), N masked
stacks of all utterances, G codebooks, V codes.
"""

import numpy as np
import torch

from ..features import pad_to_stacks, relative_lengths, stack_frames
from ..losses import code_cross_entropy
from ..masking import check_mask, stack_mask
from .base import PretrainBrain


class BestRQBrain(PretrainBrain):
    """Pretrains as in Chiu et al., https://arxiv.org/abs/2202.01855.

    The features are normalised and their frames stacked for the quantiser; spans of frames are
    replaced by noise; the encoder predicts the codes of the stacks that were masked whole. Logits
    are computed for those only.

    Modules: ``quantiser``, ``normalize``, ``front_end`` (which takes one step per stack),
    ``encoder``, ``head`` (as many outputs as the quantiser's ``num_scores``).
    Hyperparameters: ``compute_features``, ``stack``, ``mask_ratio``, ``mask_length`` (feature
    frames), ``noise_mean``, ``noise_std``.
    """

    hparams_read = PretrainBrain.hparams_read | {
        "compute_features", "stack", "mask_ratio", "mask_length", "noise_mean", "noise_std",
    }  # fmt: skip

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.quantiser.requires_grad_(False)  # targets do not move, whatever gives them
        self.hparams.compute_features.to(self.device)
        check_mask(self.hparams.mask_ratio, self.hparams.mask_length)
        self.check_sizes()

    @property
    def min_samples(self):
        """The shortest clip that a span of masked frames with a target fits into."""
        hop = self.hparams.compute_features.compute_STFT.hop_length
        return (max(self.hparams.mask_length, self.hparams.stack) - 1) * hop

    def check_sizes(self):
        """Raises a ValueError that names the sizes of the YAML that do not fit."""
        stack = self.hparams.stack
        wavs_BL = torch.zeros(1, self.hparams.sample_rate // 2, device=self.device)
        feats_BTF = self.hparams.compute_features(wavs_BL)
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
        self.modules.eval()
        with torch.no_grad():
            steps = self.modules.front_end(feats_BTF).shape[1]
        if steps * stack != feats_BTF.shape[1]:
            raise ValueError(
                f"front_end and stack do not fit: of {feats_BTF.shape[1]} frames the front_end "
                f"makes {steps} steps, the targets are {feats_BTF.shape[1] // stack} stacks of "
                f"{stack}; set stack: to the product of the front_end's strides"
            )
        scores = self.quantiser.num_scores
        if (outputs := self.raw("head").w.out_features) != scores:
            raise ValueError(
                f"head and quantiser do not fit: {outputs} scores for "
                f"{self.quantiser.num_codebooks} x {self.quantiser.codebook_size} codes; set "
                f"n_neurons: !ref <quantiser.num_scores> of the head in your YAML"
            )

    def features(self, wavs_BL, lengths_B):
        """Normalised features in whole stacks, zero after each utterance, and their lengths."""
        feats_BTF = self.hparams.compute_features(wavs_BL)
        hop = self.hparams.compute_features.compute_STFT.hop_length
        frames_B = (lengths_B // hop + 1).clamp(max=feats_BTF.shape[1])
        relative_B = relative_lengths(frames_B, feats_BTF.shape[1])
        feats_BTF = self.modules.normalize(feats_BTF, relative_B)
        return pad_to_stacks(feats_BTF, frames_B, self.hparams.stack), frames_B

    def quantiser_inputs(self, wavs_BL, lengths_B):
        """What the quantiser sees, (batch, stacks, input_dim), and the whole stacks of each."""
        feats_BTF, frames_B = self.features(wavs_BL, lengths_B)
        return stack_frames(feats_BTF, self.hparams.stack), frames_B // self.hparams.stack

    def encode_features(self, feats_BTF, frames_B):
        """The encoder's outputs, one per stack, shape (batch, stacks, dim)."""
        hidden_BSD = self.modules.front_end(feats_BTF).flatten(2)
        steps_B = (frames_B + self.hparams.stack - 1) // self.hparams.stack
        return self.modules.encoder(hidden_BSD, steps_B / hidden_BSD.shape[1])

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
        """Scores and codes of the masked stacks, and the counts that are logged."""
        wavs_BL, lengths_B = self.waveforms(batch)
        feats_BTF, frames_B = self.features(wavs_BL, lengths_B)
        codes_BSG = self.quantiser.encode(stack_frames(feats_BTF, self.hparams.stack))

        generator = self.generator(stage)
        mask_BT = self.draw_mask(frames_B, feats_BTF.shape[1], generator, align=self.hparams.stack)
        noise_BTF = torch.randn(feats_BTF.shape, generator=generator, device=feats_BTF.device)
        noise_BTF = noise_BTF * self.hparams.noise_std + self.hparams.noise_mean
        feats_BTF = torch.where(mask_BT[..., None], noise_BTF, feats_BTF)

        encoded_BSD = self.encode_features(feats_BTF, frames_B)
        target_BS = stack_mask(mask_BT, self.hparams.stack)
        logits_NV = self.modules.head(encoded_BSD[target_BS])
        logits_NGV = logits_NV.unflatten(1, (self.quantiser.num_codebooks, -1))
        seen = {"masked": mask_BT.sum(), "valid": frames_B.sum(), "samples": lengths_B.sum()}
        return logits_NGV, codes_BSG[target_BS], seen

    def compute_objectives(self, predictions, batch, stage):
        """Cross-entropy per masked target, in nats."""
        logits_NGV, codes_NG, seen = predictions
        loss, correct, targets = code_cross_entropy(logits_NGV, codes_NG)
        self.observe(stage, codes_NG, loss=loss, correct=correct, targets=targets, **seen)
        return loss / targets.clamp(min=1)
