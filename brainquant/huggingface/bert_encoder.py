"""w2v-BERT 2.0 of transformers, held as it is.

Shape suffixes: B batch, L samples, T encoder frames, F features of an encoder frame, D dim, I input
dim of the quantiser.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from typing_extensions import override

from ..functional.transfer import to_device
from ..masking import lengths_to_mask
from ..models.speech_encoder import Encoded, SpeechEncoder
from .filterbanks import HOP, STACK, WINDOW, Filterbanks
from .long_features import FilterbanksInPieces
from .parts import freeze_adapter
from .quick import quicken_attention


class W2vBertEncoder(SpeechEncoder):
    """The encoder of w2v-BERT 2.0 (Seamless Communication, https://arxiv.org/abs/2312.05187).

    The modules are transformers' own; this class makes their inputs, and calls them in their
    order. Our masks take the place of its own, and no other mask is drawn. A clip gets the same
    from any batch, since the convolutions of the layers read zeros in the padding.

    Arguments
    ---------
    model : transformers.Wav2Vec2BertModel
        The model. A fine-tuning may have put an adapter after the layers; it is kept, and not used.
    sample_rate : int
        Samples per second of the waveforms.
    targets : torch.nn.Module or None
        As for ``HuggingFaceEncoder``. None: the quantiser's inputs are those of the model.

    Example
    -------
    >>> from brainquant.huggingface.library import import_transformers
    >>> transformers = import_transformers()
    >>> config = transformers.Wav2Vec2BertConfig(
    ...     hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    ... )
    >>> encoder = W2vBertEncoder(transformers.Wav2Vec2BertModel(config))
    >>> encoded = encoder(torch.rand(2, 16000), torch.tensor([16000, 8000]))
    >>> encoded.hidden_BTD.shape, encoded.frames_B, encoded.inputs_BTI.shape
    (torch.Size([2, 49, 16]), tensor([49, 24]), torch.Size([2, 49, 160]))
    >>> encoder.frame_times(2)
    array([0.0175, 0.0375])
    """

    reads_front_end = "model.feature_projection"
    used_if_masked = ("model.masked_spec_embed",)
    context_seconds = 4.0  # a quarter of the clips that public models were trained on

    def __init__(
        self, model: Any, *, sample_rate: int = 16000, targets: torch.nn.Module | None = None
    ) -> None:
        super().__init__()
        config = model.config
        if (size := config.feature_projection_input_dim) % STACK:
            raise ValueError(
                f"model: feature_projection_input_dim is {size}, but {STACK} frames of filterbanks "
                f"are read side by side, 160 in all public models; correct its config.json"
            )
        self.model = model
        self.targets = targets
        self.filterbanks = Filterbanks(sample_rate, size // STACK)
        self.sample_rate = sample_rate
        self.dim = config.hidden_size
        self.input_dim: Any = self.filterbanks.dim if targets is None else targets.input_dim
        freeze_adapter(model)
        quicken_attention(model)

    @override
    def forward(
        self,
        wavs_BL: torch.Tensor,
        lengths_B: torch.Tensor,
        mask_BT: torch.Tensor | None = None,
    ) -> Encoded:
        """Encodes.

        Arguments
        ---------
        wavs_BL : torch.Tensor
            Waveforms, shape (batch, samples).
        lengths_B : torch.Tensor
            Samples of each, on the host or on the device of the waveforms.
        mask_BT : torch.Tensor or None
            BoolTensor, True for each of the ``count_frames(samples)`` frames that
            ``masked_spec_embed`` replaces.

        Returns
        -------
        encoded : Encoded
            ``inputs_BTI`` are not masked.

        Raises
        ------
        ValueError
            If no clip is long enough for a frame.
        """
        feats_BTF, frames_B = self.features(wavs_BL, lengths_B)
        hidden_BTD = self.encode_features(feats_BTF, frames_B, mask_BT)
        inputs_BTI = self._targets(wavs_BL, lengths_B, feats_BTF)
        return Encoded(hidden_BTD, to_device(frames_B, wavs_BL.device), inputs_BTI)

    def features(
        self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the model reads, (batch, frames, features), and the frames of each clip."""
        if wavs_BL.shape[1] < self.min_samples:
            raise ValueError(
                f"a frame of the model sees {self.min_samples} samples, but the longest clip has "
                f"{wavs_BL.shape[1]}; leave out clips with fewer than {self.min_samples} samples"
            )
        feats_BTF = self.filterbanks(wavs_BL, to_device(lengths_B, wavs_BL.device))
        return feats_BTF, self.count_frames(lengths_B)

    @override
    def encode_features(
        self,
        feats_BTF: torch.Tensor,
        frames_B: torch.Tensor,
        mask_BT: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Outputs for features, shape (batch, frames, dim)."""
        hidden_BTD, _ = self.model.feature_projection(feats_BTF)
        if mask_BT is not None:
            embedding_D = self.model.masked_spec_embed.to(hidden_BTD.dtype)
            hidden_BTD = torch.where(mask_BT[..., None], embedding_D, hidden_BTD)
        # A clip without a frame keeps one: attention to nothing would be NaN.
        valid_BT = lengths_to_mask(frames_B.clamp(min=1), hidden_BTD.shape[1])
        valid_BT = to_device(valid_BT, hidden_BTD.device)
        return self.model.encoder(hidden_BTD, attention_mask=valid_BT).last_hidden_state

    @override
    def in_pieces(self) -> FilterbanksInPieces:
        return FilterbanksInPieces(self)

    def _targets(
        self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor, feats_BTF: torch.Tensor
    ) -> torch.Tensor:
        if self.targets is None:
            return feats_BTF
        return self.targets(wavs_BL, lengths_B, feats_BTF.shape[1])

    @override
    def quantiser_inputs(
        self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs of the model, or what ``targets`` makes, and the frames of each clip."""
        feats_BTF, frames_B = self.features(wavs_BL, lengths_B)
        return self._targets(wavs_BL, lengths_B, feats_BTF), frames_B

    @override
    def count_frames(self, num_samples: Any) -> Any:
        return self.filterbanks.count_frames(num_samples) // STACK

    @override
    def frame_times(self, num_frames: int) -> np.ndarray:
        return (np.arange(num_frames) * self.stride + self.min_samples / 2) / self.sample_rate

    @property
    @override
    def min_samples(self) -> int:
        return WINDOW + (STACK - 1) * HOP

    @property
    @override
    def stride(self) -> int:
        return STACK * HOP

    @override
    def _layers_and_owner(self) -> tuple[torch.nn.ModuleList, Any]:
        return self.model.encoder.layers, torch.nn.ModuleList()
