"""wav2vec 2.0: tell the quantised latents of masked speech from others of the same utterance.

Shape suffixes: B batch, L samples, T latent frames, C latent channels, M masked frames of an
utterance (packed to the left), N masked frames of all utterances, D dim, G codebooks.
"""

import math

import numpy as np
import torch
from typing_extensions import override

from ..functional.transfer import to_device
from ..losses import contrastive_loss, sample_negatives
from ..masking import lengths_to_mask, true_indices
from ..models.features import normalise_utterances
from ..training.keys import WAV2VEC2
from .pretrain import PretrainBrain

# Channels of latents that vary by less over an utterance say nothing about its frames.
LEAST_DEVIATION = 3e-3


class Wav2Vec2Brain(PretrainBrain):
    """Pretrains as in Baevski et al., https://arxiv.org/abs/2006.11477.

    Loss per masked frame: contrastive loss, plus ``aux_weight`` times the quantiser's own loss
    (the diversity of GumbelVectorQuantizer, for one), plus ``penalty_weight`` times the mean
    square of the extractor's activations. The logged loss is the contrastive part, whose chance
    is ln(negatives + 1).

    With ``normalise_targets`` the quantiser sees latents whose channels have mean zero and
    variance one over each utterance, as the features of BEST-RQ are normalised. The negatives are
    of the same utterance: what all of its frames share tells none from another. With it, codes of
    an hour of speech hardly tell frames apart for long (docs/learning.md); the paper keeps it.

    Modules: ``extractor`` (``brainquant.models.Wav2Vec2Extractor``), ``encoder``
    (SpeechBrain's wav2vec ``EncoderWrapper``), ``quantiser`` (which gives vectors),
    ``target_proj``, ``context_proj``.
    Hyperparameters: ``mask_ratio``, ``mask_length`` (latent frames), ``num_negatives``,
    ``logit_temp``, ``aux_weight``, ``penalty_weight``, ``normalise_targets``.
    """

    hparams_read = PretrainBrain.hparams_read | WAV2VEC2

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.check_sizes()

    def check_sizes(self):
        """Raises a ValueError that names the sizes of the YAML that do not fit."""
        self.check_span()
        if self.quantiser.vq_dim is None:
            raise ValueError(
                f"quantiser: {type(self.quantiser).__name__} gives codes but no vectors, and "
                f"wav2vec 2.0 contrasts vectors; use one with a vq_dim, for instance the fragment "
                f"gumbel or vector of hparams/quantisers"
            )
        channels = self.raw("extractor").out_dim
        if channels != self.quantiser.input_dim:
            raise ValueError(
                f"features and quantiser do not fit: the extractor gives {channels} channels, but "
                f"the quantiser's input_dim is {self.quantiser.input_dim}; set input_dim: to the "
                f"extractor's last out_channels in your YAML"
            )
        if (size := self.raw("target_proj").in_features) != self.quantiser.vq_dim:
            raise ValueError(
                f"quantiser and target_proj do not fit: vq_dim is {self.quantiser.vq_dim}, "
                f"in_features of target_proj {size}; set in_features: to vq_dim in your YAML"
            )
        samples = max(self.hparams.sample_rate // 2, self.min_samples)
        wavs_BL = torch.zeros(1, samples, device=self.device)
        encoded_BTD = self.try_modules(
            "extractor and encoder", self.encode, wavs_BL, torch.tensor([samples])
        )
        self.try_modules("encoder and context_proj", self.raw("context_proj"), encoded_BTD)

    def quantiser_inputs(self, wavs_BL, lengths_B):
        """What the quantiser sees, (batch, frames, channels), and the frames of each."""
        latents_BTC, _ = self.extract(wavs_BL, lengths_B)
        frames_B = self.raw("extractor").get_output_lengths(lengths_B).clamp(min=0)
        return self.to_be_quantised(latents_BTC, frames_B), frames_B

    def to_be_quantised(self, latents_BTC, frames_B):
        """The latents, or their normalised copy."""
        if not self.hparams.normalise_targets:
            return latents_BTC
        frames_B = to_device(frames_B, latents_BTC.device)
        return normalise_utterances(latents_BTC.float(), frames_B, LEAST_DEVIATION)

    def extract(self, wavs_BL, lengths_B):
        """The extractor's latents and their penalty."""
        return self.modules.extractor(wavs_BL, to_device(lengths_B, wavs_BL.device))

    def encode(self, wavs_BL, lengths_B, latents_BTC=None, mask_BT=None):
        """The encoder's outputs, shape (batch, frames, dim)."""
        if latents_BTC is None:
            latents_BTC, _ = self.extract(wavs_BL, lengths_B)
        frames_B = self.raw("extractor").get_output_lengths(lengths_B).clamp(min=1)
        relative_B = to_device(frames_B / latents_BTC.shape[1], latents_BTC.device)
        return self.modules.encoder(latents_BTC, wav_lens=relative_B, mask=mask_BT)["embeddings"]

    def count_frames(self, num_samples):
        """Encoder frames of an utterance."""
        return int(self.raw("extractor").get_output_lengths(torch.tensor(num_samples)))

    @property
    def min_samples(self):
        """The shortest clip that a span of masked frames fits into."""
        field, stride = self.raw("extractor").field_and_stride()
        return field + (self.hparams.mask_length - 1) * stride

    def frame_times(self, num_frames):
        """Seconds at the middle of each encoder frame."""
        field, stride = self.raw("extractor").field_and_stride()
        return (np.arange(num_frames) * stride + field / 2) / self.hparams.sample_rate

    def compute_forward(self, batch, stage):
        """What the loss compares, and the counts that are logged."""
        wavs_BL, lengths_B = self.waveforms(batch)
        latents_BTC, penalty = self.extract(wavs_BL, lengths_B)
        frames_B = self.raw("extractor").get_output_lengths(lengths_B).clamp(min=0)
        of_masks, of_negatives = self.generators(stage)
        masked_BT = self.draw_mask(frames_B, latents_BTC.shape[1], of_masks)
        counts_B = masked_BT.sum(1)
        packed_BM = lengths_to_mask(counts_B, int(counts_B.max()))
        seen = {"masked": masked_BT, "valid": frames_B, "samples": lengths_B}
        seen = {name: int(counted.sum()) for name, counted in seen.items()}
        # Where the masked frames are, and where they go: known here, nothing waits for the device.
        masked_N, packed_N, masked_BT, counts_B = (
            to_device(tensor, latents_BTC.device)
            for tensor in (true_indices(masked_BT), true_indices(packed_BM), masked_BT, counts_B)
        )

        def pack(rows_NX):
            """Rows of all utterances, one utterance per line, with zeros after its last."""
            packed_RX = rows_NX.new_zeros(packed_BM.numel(), rows_NX.shape[1])
            return packed_RX.index_copy(0, packed_N, rows_NX).unflatten(0, packed_BM.shape)

        encoded_BTD = self.encode(wavs_BL, lengths_B, latents_BTC, masked_BT)
        context_ND = self.modules.context_proj(encoded_BTD.flatten(0, 1).index_select(0, masked_N))
        to_quantise_BTC = self.to_be_quantised(latents_BTC, frames_B)
        quantised = self.modules.quantiser(
            to_quantise_BTC.flatten(0, 1).index_select(0, masked_N)[None],
            generator=of_negatives,
            return_codes=True,
        )
        return {
            "context_BMD": pack(context_ND),
            "targets_BMD": pack(self.modules.target_proj(quantised["x"][0])),
            "chosen_BMG": pack(quantised["chosen_codes"][0]),
            "codes_NG": quantised["codes"][0],
            "counts_B": counts_B,
            "negatives_BMK": sample_negatives(
                counts_B, packed_BM.shape[1], self.hparams.num_negatives, generator=of_negatives
            ),
            "aux_loss": quantised["aux_loss"],
            "prob_perplexity": quantised.get("prob_perplex"),
            "penalty": penalty,
            "seen": seen,
        }

    def compute_objectives(self, predictions, batch, stage):
        """Contrastive loss per masked frame in nats, plus the weighted extra losses."""
        loss, correct, targets = contrastive_loss(
            predictions["context_BMD"],
            predictions["targets_BMD"],
            predictions["chosen_BMG"],
            predictions["counts_B"],
            predictions["negatives_BMK"],
            self.hparams.logit_temp,
        )
        extra = {"aux_loss": predictions["aux_loss"], "penalty": predictions["penalty"]}
        if predictions["prob_perplexity"] is not None:
            extra["prob_perplexity"] = predictions["prob_perplexity"]
        self.observe(
            stage,
            predictions["codes_NG"],
            loss=loss,
            correct=correct,
            targets=targets,
            **extra,
            **predictions["seen"],
        )
        return (
            loss / targets.clamp(min=1)
            + self.hparams.aux_weight * predictions["aux_loss"]
            + self.hparams.penalty_weight * predictions["penalty"]
        )

    @override
    def describe(self, values, counts_GV):
        """Chance (the positive is one of the negatives and itself), temperature, extra losses."""
        candidates = self.hparams.num_negatives + 1
        numbers = {"chance_loss": math.log(candidates), "chance_accuracy": 1 / candidates}
        names = {"prob_perplexity": "prob_perplexity", "aux_loss": "aux_loss"}
        names["penalty"] = "feature_penalty"
        for name, shown in names.items():
            if name in values:
                numbers[shown] = values[name] / max(values["batches"], 1)
        if self.quantiser.curr_temp is not None:
            numbers["temp"] = self.quantiser.curr_temp
        return numbers
