"""wav2vec 2.0: tell the quantised latents of masked speech from others of the same utterance.

Shape suffixes: B batch, L samples, T latent frames, M masked frames of an utterance (packed to
the left), N masked frames of all utterances, D dim, G codebooks, K negatives, R rows, X any size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from speechbrain import Stage
from typing_extensions import override

from ..functional.transfer import to_device
from ..losses import contrastive_loss, has_same_codes, sample_negatives
from ..masking import lengths_to_mask, true_indices
from ..models.speech_encoder import try_modules
from ..training.keys import WAV2VEC2
from .pretrain import PretrainBrain


class Wav2Vec2Brain(PretrainBrain):
    """Pretrains as in Baevski et al., https://arxiv.org/abs/2006.11477.

    The loss per masked frame is the contrastive loss, plus ``aux_weight`` times the quantiser's own
    loss (for instance the diversity of GumbelVectorQuantizer), plus ``penalty_weight`` times the
    mean square of the extractor's activations. The log shows the contrastive part, whose chance
    is ln(negatives + 1), or less if ``same_code_negatives: leave_out`` drops some of them.

    Modules: ``encoder`` (a ``Wav2Vec2Encoder`` or a ``HuggingFaceEncoder``), ``quantiser`` (one
    that gives vectors), ``target_proj``, ``context_proj``.
    Hyperparameters: ``mask_ratio``, ``mask_length`` (latent frames), ``num_negatives``,
    ``same_code_negatives``, ``logit_temp``, ``aux_weight``, ``penalty_weight``.
    """

    hparams_read = PretrainBrain.hparams_read | WAV2VEC2

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.check_sizes()

    def check_sizes(self) -> None:
        """Raises a ValueError that names the sizes of the YAML that do not fit."""
        self.check_span()
        encoder = self.raw("encoder")
        if self.quantiser.vq_dim is None:
            raise ValueError(
                f"quantiser: {type(self.quantiser).__name__} gives codes but no vectors, and "
                f"wav2vec 2.0 contrasts vectors; use one with a vq_dim, for instance the fragment "
                f"gumbel or vector of hparams/quantisers"
            )
        if (channels := encoder.input_dim) != self.quantiser.input_dim:
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
        hidden_BTD = torch.zeros(1, 1, encoder.dim, device=self.device)
        try_modules("encoder and context_proj", self.raw("context_proj"), hidden_BTD)

    @property
    @override
    def min_samples(self) -> int:
        """Samples of the shortest clip that holds a masked span."""
        encoder = self.raw("encoder")
        return encoder.min_samples + (self.hparams.mask_length - 1) * encoder.stride

    @override
    def compute_forward(self, batch: Any, stage: Stage) -> dict[str, Any]:
        """What the loss compares, and the sums for the log."""
        wavs_BL, lengths_B = self.waveforms(batch)
        encoder = self.raw("encoder")
        frames_B = encoder.count_frames(lengths_B)
        of_masks, of_negatives = self.generators(stage)
        masked_BT = self.draw_mask(frames_B, encoder.count_frames(wavs_BL.shape[1]), of_masks)
        counts_B = masked_BT.sum(1)
        packed_BM = lengths_to_mask(counts_B, int(counts_B.max()))
        seen = {"masked": masked_BT, "valid": frames_B, "samples": lengths_B}
        seen = {name: int(counted.sum()) for name, counted in seen.items()}
        # Indices of the masked frames, before and after packing. The host knows them, so nothing
        # waits for the device.
        masked_N, packed_N, masked_BT, counts_B = (
            to_device(tensor, wavs_BL.device)
            for tensor in (true_indices(masked_BT), true_indices(packed_BM), masked_BT, counts_B)
        )

        def pack(rows_NX: torch.Tensor) -> torch.Tensor:
            """Rows of all utterances, one utterance per line, with zeros after its last."""
            packed_RX = rows_NX.new_zeros(packed_BM.numel(), rows_NX.shape[1])
            return packed_RX.index_copy(0, packed_N, rows_NX).unflatten(0, packed_BM.shape)

        lengths_B = to_device(lengths_B, wavs_BL.device)
        with self.trains_encoder(stage):
            encoded = self.modules["encoder"](wavs_BL, lengths_B, masked_BT)
        hidden_ND = encoded.hidden_BTD.flatten(0, 1).index_select(0, masked_N)
        context_ND = self.modules["context_proj"](hidden_ND)
        quantised = self.modules["quantiser"](
            encoded.inputs_BTI.flatten(0, 1).index_select(0, masked_N)[None],
            generator=of_negatives,
            return_codes=True,
        )
        return {
            "context_BMD": pack(context_ND),
            "targets_BMD": pack(self.modules["target_proj"](quantised["x"][0])),
            "chosen_BMG": pack(quantised["chosen_codes"][0]),
            "codes_NG": quantised["codes"][0],
            "counts_B": counts_B,
            "negatives_BMK": sample_negatives(
                counts_B, packed_BM.shape[1], self.hparams.num_negatives, generator=of_negatives
            ),
            "aux_loss": quantised["aux_loss"],
            "prob_perplexity": quantised.get("prob_perplex"),
            "penalty": encoded.penalty,
            "seen": seen,
        }

    @override
    def compute_objectives(self, predictions: Any, batch: Any, stage: Stage) -> torch.Tensor:
        """Contrastive loss per masked frame in nats, plus the weighted extra losses."""
        loss, correct, targets = contrastive_loss(
            predictions["context_BMD"],
            predictions["targets_BMD"],
            predictions["chosen_BMG"],
            predictions["counts_B"],
            predictions["negatives_BMK"],
            self.hparams.logit_temp,
            same_code_negatives=self.hparams.same_code_negatives,
        )
        extra = {"aux_loss": predictions["aux_loss"], "penalty": predictions["penalty"]}
        if self.hparams.same_code_negatives == "leave_out":
            extra["chance"] = chance_without_same_codes(
                predictions["chosen_BMG"], predictions["counts_B"], predictions["negatives_BMK"]
            )
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
    def describe(self, values: dict[str, float], counts_GV: torch.Tensor) -> dict[str, float]:
        """Chance (the positive is one of the negatives and itself), temperature, extra losses."""
        candidates = self.hparams.num_negatives + 1
        numbers = {"chance_loss": math.log(candidates), "chance_accuracy": 1 / candidates}
        if "chance" in values:
            numbers["chance_loss"] = values["chance"] / max(values["targets"], 1)
        names = {"prob_perplexity": "prob_perplexity", "aux_loss": "aux_loss"}
        names["penalty"] = "feature_penalty"
        for name, shown in names.items():
            if name in values:
                numbers[shown] = values[name] / max(values["batches"], 1)
        if self.quantiser.curr_temp is not None:
            numbers["temp"] = self.quantiser.curr_temp
        return numbers


def chance_without_same_codes(
    codes_BMG: torch.Tensor, counts_B: torch.Tensor, negatives_BMK: torch.Tensor
) -> torch.Tensor:
    """Loss of equal scores if negatives with the positive's codes are left out, summed.

    The arguments are those of ``contrastive_loss``; so is what counts for nothing.

    Example
    -------
    >>> codes, negatives = torch.tensor([[[5], [5], [8]]]), torch.tensor([[[1, 2], [0, 0], [0, 1]]])
    >>> chance = chance_without_same_codes(codes, torch.tensor([3]), negatives)
    >>> round(float(chance), 4)  # ln 2, ln 1, ln 3
    1.7918
    """
    left_BM = (~has_same_codes(codes_BMG, negatives_BMK)).sum(-1)
    counted_BM = lengths_to_mask(counts_B, codes_BMG.shape[1]) & (counts_B > 1)[:, None]
    return torch.where(counted_BM, torch.log1p(left_BM), 0.0).sum()
