"""BEST-RQ: predict the codes of masked speech.

Shape suffixes: B batch, S stacks (targets), N stacks of all utterances, D dim, G codebooks,
V codes.
"""

from __future__ import annotations

from typing import Any

import torch
from speechbrain import Stage
from typing_extensions import override

from ..models.speech_encoder import try_modules
from ..quantisers import Clips
from ..training.keys import BEST_RQ
from .masked_codes import (
    Predictions,
    check_masks,
    code_objective,
    mask_batch,
    shortest_clip,
    unmasked_numbers,
)
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
        self.quantiser.requires_grad_(False)  # targets are not trained, whatever makes them
        self.check_sizes()

    @property
    @override
    def min_samples(self) -> int:
        """Samples of the shortest clip that holds a masked span with a target."""
        return shortest_clip(self)

    def check_sizes(self) -> None:
        """Raises a ValueError that names the sizes of the YAML that do not fit."""
        encoder, head = self.raw("encoder"), self.raw("head")
        check_masks(self)
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
    def compute_forward(self, batch: Any, stage: Stage) -> Predictions:
        """Scores and codes of the masked and of the unmasked stacks, and the sums for the log."""
        masked = mask_batch(self, batch, stage)
        with self.trains_encoder(stage):
            encoded = self.modules["encoder"](*masked.inputs)
        ids = getattr(batch, "id", [])
        codes_BSG = self.quantiser.encode_clips(
            Clips(ids, masked.wavs_BL, masked.lengths_B, encoded.inputs_BTI, masked.valid_BS)
        )
        hidden_ND = encoded.hidden_BTD.flatten(0, 1).index_select(0, masked.predicted_N)
        logits_NGV = self.modules["head"](hidden_ND).unflatten(
            1, (self.quantiser.num_codebooks, -1)
        )
        codes_NG = codes_BSG.flatten(0, 1).index_select(0, masked.predicted_N)
        return list(zip(logits_NGV.split(masked.sizes), codes_NG.split(masked.sizes))), masked.seen

    @override
    def compute_objectives(self, predictions: Any, batch: Any, stage: Stage) -> torch.Tensor:
        """Cross-entropy per masked target, in nats, and the weighted one per unmasked target."""
        return code_objective(self, predictions, stage)

    @override
    def describe(self, values: dict[str, float], counts_GV: torch.Tensor) -> dict[str, float]:
        """Also the loss of unmasked targets, where they are predicted."""
        return {**super().describe(values, counts_GV), **unmasked_numbers(values)}
