"""Online codebooks: predict the codes that a slow copy of the encoder gives to unmasked speech.

Shape suffixes: B batch, S stacks (targets), N stacks of all utterances, D dim, G codebooks (layers
of the teacher), I inputs of the quantiser, V codes.
"""

from __future__ import annotations

from typing import Any

import torch
from speechbrain import Stage
from typing_extensions import override

from ..functional.transfer import to_device
from ..masking import true_indices
from ..models.features import normalise_utterances
from ..models.moving_teacher import MovingTeacher
from ..models.speech_encoder import Encoded, try_modules
from ..monitoring.health import unigram_loss
from ..quantisers.codebooks import MovingCodebooks
from ..training.device_options import drops_layers
from ..training.keys import BEST_RQ, ONLINE_CODEBOOKS
from ..training.schedules import ema_decay
from .masked_codes import (
    MaskedBatch,
    Predictions,
    check_masks,
    code_objective,
    mask_batch,
    shortest_clip,
    unmasked_numbers,
)
from .pretrain import PretrainBrain


class OnlineCodebooksBrain(PretrainBrain):
    """Pretrains by self-distillation, as DinoSR and SpidR do.

    A teacher, the moving average of the encoder, reads the speech without masks. The outputs of
    each of its last layers are normalised over each utterance, and a codebook, which follows them,
    gives each frame a code. The encoder, which reads masked speech, predicts these codes: from its
    last layer (DinoSR, https://arxiv.org/abs/2305.10005), or those of each layer from its own layer
    of the same number (SpidR, https://arxiv.org/abs/2512.20308).

    After each step the teacher moves towards the encoder, and the codebooks move by the frames of
    all batches and ranks; a step that is left out moves neither. Masks, noise and
    ``unmasked_weight`` are those of ``BestRQBrain``. The log's unigram is that of the codes of the
    same log point, because the codes of an earlier one may have meant something else.

    Modules: ``encoder`` (a ``BestRQEncoder`` or a ``Wav2Vec2Encoder``), ``codebooks`` (an
    ``OnlineCodebooks`` with a codebook for each layer whose codes are targets), ``head`` (a
    ``LayerHeads``). The Brain adds ``teacher``. There is no ``quantiser`` among them, because the
    codebooks read layers: an exported encoder has no codes of its own.
    Hyperparameters: those of ``BestRQBrain``; ``student_layers`` ("each" or "last"); ``ema_decay``,
    ``ema_decay_end`` and ``ema_steps``, see ``brainquant.training.schedules.ema_decay``.
    """

    hparams_read = PretrainBrain.hparams_read | BEST_RQ | ONLINE_CODEBOOKS

    def __init__(self, modules: dict[str, torch.nn.Module], *args: Any, **kwargs: Any) -> None:
        encoder: Any = modules["encoder"]
        super().__init__({**modules, "teacher": MovingTeacher(encoder)}, *args, **kwargs)
        self.check_sizes()

    @property
    @override
    def quantiser(self) -> Any:
        return self.raw("codebooks")

    @property
    @override
    def min_samples(self) -> int:
        """Samples of the shortest clip that holds a masked span with a target."""
        return shortest_clip(self)

    @property
    def target_layers(self) -> list[int]:
        """The layers whose codes are the targets, counted from 1."""
        last = len(self.raw("encoder").layers)
        return list(range(last - self.quantiser.num_codebooks + 1, last + 1))

    def check_sizes(self) -> None:
        """Raises a ValueError that names the sizes of the YAML that do not fit."""
        encoder, quantiser = self.raw("encoder"), self.quantiser
        check_masks(self)
        if not isinstance(quantiser, MovingCodebooks):
            raise ValueError(
                f"codebooks: the codes of a teacher that learns have to follow it, and those of "
                f"{type(quantiser).__name__} do not; use the fragment online_codebooks of "
                f"hparams/quantisers"
            )
        if (groups := quantiser.num_codebooks) > (layers := len(encoder.layers)):
            raise ValueError(
                f"codebooks: groups is {groups}, one for each layer, but the encoder has {layers} "
                f"layers; set num_target_layers: to at most {layers} in your YAML"
            )
        if quantiser.input_dim != groups * encoder.dim:
            raise ValueError(
                f"encoder and codebooks do not fit: {groups} layers of {encoder.dim} are "
                f"{groups * encoder.dim}, but their input_dim is {quantiser.input_dim}; "
                f"set input_dim: !ref <d_model> * <num_target_layers> in your YAML"
            )
        if self.predicts_from_each and drops_layers(encoder):
            raise ValueError(
                "student_layers is each, but the encoder drops layers at random; set "
                "student_layers: last, or layerdrop of the encoder to 0"
            )
        hidden_NGD = torch.zeros(1, 1, encoder.dim, device=self.device)
        scores = try_modules("encoder and head", self.raw("head"), hidden_NGD)
        if scores.shape[1:] != (expected := (groups, quantiser.codebook_size)):
            raise ValueError(
                f"head and codebooks do not fit: scores of {tuple(scores.shape[1:])} for "
                f"{expected[0]} x {expected[1]} codes; set num_codebooks: !ref "
                f"<codebooks.num_codebooks> and codebook_size: !ref <codebooks.codebook_size> of "
                f"the head in your YAML"
            )

    @property
    def predicts_from_each(self) -> bool:
        """Whether each layer predicts codes, and not the last one all of them."""
        return self.hparams.student_layers == "each"

    # ---- a step ----------------------------------------------------------------------------

    @override
    def compute_forward(self, batch: Any, stage: Stage) -> Predictions:
        """Scores and codes of the masked and of the unmasked stacks, and the sums for the log."""
        masked = mask_batch(self, batch, stage)
        with self.trains_encoder(stage):
            encoded, layers = self.encode(masked)
        codes_NG = self.codes(encoded, masked).index_select(0, masked.predicted_N)
        hidden_NGD = torch.stack(
            [hidden.flatten(0, 1).index_select(0, masked.predicted_N) for hidden in layers], 1
        )
        logits_NGV = self.modules["head"](hidden_NGD)
        return list(zip(logits_NGV.split(masked.sizes), codes_NG.split(masked.sizes))), masked.seen

    def encode(self, masked: MaskedBatch) -> tuple[Encoded, list[torch.Tensor]]:
        """Encodes masked speech; gives also the outputs of the layers that predict codes."""
        results: list[Encoded] = []
        if not self.predicts_from_each:
            encoded = self.modules["encoder"](*masked.inputs)
            return encoded, [encoded.hidden_BTD]

        def encode(*inputs: torch.Tensor) -> None:
            results.append(self.modules["encoder"](*inputs))

        outputs = self.raw("encoder").outputs_of(self.target_layers, encode, *masked.inputs)
        # The last one has passed the norm that follows it, if there is one.
        return results[0], [*outputs[:-1], results[0].hidden_BTD]

    @torch.no_grad()
    def codes(self, encoded: Encoded, masked: MaskedBatch) -> torch.Tensor:
        """Codes of the teacher's layers for all stacks of the batch, shape (stacks, codebooks).

        In training the codebooks gather the whole stacks; others, and padding, have the code -1.
        """
        outputs = self.raw("teacher").layer_outputs(
            encoded.inputs_BTI, masked.frames_B, self.target_layers
        )
        device = encoded.hidden_BTD.device
        stacks_B = to_device(masked.valid_BS.sum(1), device)
        valid_N = to_device(true_indices(masked.valid_BS), device)
        x_NI = torch.cat(
            [
                normalise_utterances(x_BSD.float(), stacks_B).flatten(0, 1).index_select(0, valid_N)
                for x_BSD in outputs
            ],
            dim=1,
        )
        codes_NG = self.quantiser.assign(x_NI[None], generator=masked.generator)[0]
        every_NG = codes_NG.new_full((masked.valid_BS.numel(), codes_NG.shape[1]), -1)
        return every_NG.index_copy(0, valid_N, codes_NG)

    @override
    def compute_objectives(self, predictions: Any, batch: Any, stage: Stage) -> torch.Tensor:
        """Cross-entropy per masked target, in nats, and the weighted one per unmasked target."""
        return code_objective(self, predictions, stage)

    # ---- the teacher -----------------------------------------------------------------------

    @override
    def begin_with_weights(self) -> None:
        """Also gives the teacher the weights that the encoder begins with."""
        super().begin_with_weights()
        self.raw("teacher").follow(self.raw("encoder"))

    @property
    def ema_decay(self) -> float:
        """The share of the old teacher in the new one, after the next step."""
        keys = self.hparams.ema_decay, self.hparams.ema_decay_end, self.hparams.ema_steps
        return ema_decay(self.optimizer_step, *keys)

    @override
    def after_step(self, good: torch.Tensor) -> None:
        """The teacher follows the encoder, unless the step is left out."""
        super().after_step(good)
        self.raw("teacher").follow(self.raw("encoder"), good * (1 - self.ema_decay))

    @override
    def describe(self, values: dict[str, float], counts_GV: torch.Tensor) -> dict[str, float]:
        """Also the loss of unmasked targets, where they are predicted, and the teacher's decay."""
        return {
            "unigram_loss": unigram_loss(counts_GV, counts_GV),
            **unmasked_numbers(values),
            "ema_decay": self.ema_decay,
        }
