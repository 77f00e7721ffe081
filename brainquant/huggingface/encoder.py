"""Speech encoders of transformers that read waveforms, held as they are.

Shape suffixes: B batch, L samples, T latent frames, C latent channels, D dim, I input dim of the
quantiser.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import Self, override

from ..functional.transfer import to_device
from ..masking import lengths_to_mask
from ..models.extractor import ScaleGradient
from ..models.features import normalise_utterances
from ..models.speech_encoder import Encoded, SpeechEncoder
from .convolution import check_extractor, convolve_held
from .long_features import LatentsInPieces
from .parts import field_and_stride, freeze_adapter, inner_convolutions
from .quick import quicken_attention

EPS = math.sqrt(1e-7)  # of transformers' normalisation of waveforms: var + 1e-7


class HuggingFaceEncoder(SpeechEncoder):
    """A wav2vec 2.0, HuBERT, WavLM or data2vec encoder of transformers.

    The modules are transformers' own, with their names and parameters; this class calls them in
    their order. Our masks take the place of its own, and no other mask is drawn. A clip gets the
    same from any batch.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        A ``Wav2Vec2Model``, ``HubertModel``, ``WavLMModel`` or ``Data2VecAudioModel``.
    sample_rate : int
        Samples per second of the waveforms.
    do_normalize : bool
        Whether the model expects waveforms of mean zero and variance one.
    targets : torch.nn.Module or None
        Makes the inputs of the quantiser of waveforms, lengths and a number of frames; it has an
        ``input_dim``. None: they are the latents after their layer norm, as in wav2vec 2.0.
    gradient_scale : float
        Factor of the gradient that reaches the convolutions.
    freeze_extractor : bool
        Whether the convolutions are not trained.
    input_dropout : float
        Dropout of the quantiser's inputs in training (``feat_quantizer_dropout`` of the config).

    Example
    -------
    >>> from brainquant.huggingface.library import import_transformers
    >>> transformers = import_transformers()
    >>> config = transformers.Wav2Vec2Config(
    ...     hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
    ...     conv_dim=[8] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    ... )
    >>> encoder = HuggingFaceEncoder(transformers.Wav2Vec2Model(config))
    >>> encoded = encoder(torch.rand(2, 16000), torch.tensor([16000, 8000]))
    >>> encoded.hidden_BTD.shape, encoded.frames_B, encoded.inputs_BTI.shape
    (torch.Size([2, 49, 16]), tensor([49, 24]), torch.Size([2, 49, 8]))
    >>> encoder.frame_times(2)
    array([0.0125, 0.0325])
    """

    reads_front_end = "model.feature_projection.projection"
    used_if_masked = ("model.masked_spec_embed",)
    context_seconds = 4.0  # a quarter of the clips that public models were trained on
    recompute = False  # whether the backward computes latents again

    def __init__(
        self,
        model: Any,
        *,
        sample_rate: int = 16000,
        do_normalize: bool = True,
        targets: torch.nn.Module | None = None,
        gradient_scale: float = 1.0,
        freeze_extractor: bool = False,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        config = model.config
        check_extractor(config)
        self.model = model
        self.targets = targets
        self.input_dropout = torch.nn.Dropout(input_dropout)
        self.sample_rate = sample_rate
        self.do_normalize = do_normalize
        self.gradient_scale = gradient_scale
        self.dim = config.hidden_size
        self.input_dim: Any = config.conv_dim[-1] if targets is None else targets.input_dim
        self.convolutions = list(zip(config.conv_kernel, config.conv_stride))
        if freeze_extractor:
            model.feature_extractor.requires_grad_(False)
        freeze_adapter(model)
        quicken_attention(model)
        self._valid_BT: Any = None  # of the forward that runs
        for convolution in inner_convolutions(model):
            convolution.register_forward_pre_hook(self._mask_padding)

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
            ``inputs_BTI`` are not masked; ``penalty`` is the mean square of the latents before
            their layer norm, over valid frames.

        Raises
        ------
        ValueError
            If no clip is long enough for a frame.
        """
        latents_BTC = self.convolve(wavs_BL, lengths_B)
        if self.gradient_scale != 1.0:
            latents_BTC = ScaleGradient.apply(latents_BTC, self.gradient_scale)
        frames_B = self.count_frames(lengths_B)
        valid_B = to_device(frames_B, wavs_BL.device)
        valid_BT = lengths_to_mask(valid_B, latents_BTC.shape[1])
        squares_BT = latents_BTC.float().square().mean(-1)
        penalty = (squares_BT * valid_BT).sum() / valid_BT.sum().clamp(min=1)
        normed_BTC = self.norm(latents_BTC)
        hidden_BTD = self._encode_normed(normed_BTC, frames_B, mask_BT)
        inputs_BTI = self._targets(wavs_BL, lengths_B, normed_BTC)
        return Encoded(hidden_BTD, valid_B, self.input_dropout(inputs_BTI), penalty)

    def convolve(self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        """Latents of waveforms, before their layer norm, shape (batch, frames, channels)."""
        if wavs_BL.shape[1] < self.min_samples:
            raise ValueError(
                f"a frame of the extractor sees {self.min_samples} samples, but the longest clip "
                f"has {wavs_BL.shape[1]}; leave out clips with fewer than {self.min_samples} "
                f"samples"
            )
        lengths_B = to_device(lengths_B, wavs_BL.device)
        if self.do_normalize:
            wavs_BL = normalise_utterances(wavs_BL, lengths_B, EPS)
        recompute = self.training and self.recompute
        return convolve_held(self.model, wavs_BL, lengths_B, recompute=recompute)

    def norm(self, latents_BTC: torch.Tensor) -> torch.Tensor:
        """Latents after their layer norm, which some HuBERT models do not have."""
        layer_norm = getattr(self.model.feature_projection, "layer_norm", None)
        return latents_BTC if layer_norm is None else layer_norm(latents_BTC)

    @override
    def encode_features(
        self,
        feats_BTF: torch.Tensor,
        frames_B: torch.Tensor,
        mask_BT: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Outputs for latents, shape (batch, frames, dim)."""
        return self._encode_normed(self.norm(feats_BTF), frames_B, mask_BT)

    @override
    def in_pieces(self) -> LatentsInPieces:
        return LatentsInPieces(self, EPS)

    def _encode_normed(
        self, normed_BTC: torch.Tensor, frames_B: torch.Tensor, mask_BT: torch.Tensor | None
    ) -> torch.Tensor:
        projection = self.model.feature_projection
        hidden_BTD = projection.dropout(projection.projection(normed_BTC))
        if mask_BT is not None:
            embedding_D = self.model.masked_spec_embed.to(hidden_BTD.dtype)
            hidden_BTD = torch.where(mask_BT[..., None], embedding_D, hidden_BTD)
        # A clip without a frame keeps one: attention to nothing would be NaN.
        valid_BT = lengths_to_mask(frames_B.clamp(min=1), hidden_BTD.shape[1])
        self._valid_BT = to_device(valid_BT, hidden_BTD.device)
        return self.model.encoder(hidden_BTD, attention_mask=self._valid_BT).last_hidden_state

    def _mask_padding(self, module: Any, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        """What a convolution of positions reads, with zeros after the end of each clip."""
        return inputs[0] * self._valid_BT[:, None]  # (batch, dim, frames)

    def _targets(
        self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor, normed_BTC: torch.Tensor
    ) -> torch.Tensor:
        if self.targets is None:
            return normed_BTC
        return self.targets(wavs_BL, lengths_B, normed_BTC.shape[1])

    @override
    def quantiser_inputs(
        self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Normed latents, or what ``targets`` makes, (batch, frames, input dim), and frames."""
        frames_B = self.count_frames(lengths_B)
        if self.targets is None:
            return self.norm(self.convolve(wavs_BL, lengths_B)), frames_B
        num_frames = self.count_frames(wavs_BL.shape[1])
        return self.targets(wavs_BL, lengths_B, num_frames), frames_B

    @override
    def count_frames(self, num_samples: Any) -> Any:
        for kernel, stride in self.convolutions:
            num_samples = (num_samples - kernel) // stride + 1
        if isinstance(num_samples, int):
            return max(num_samples, 0)
        return num_samples.clamp(min=0)

    @override
    def frame_times(self, num_frames: int) -> np.ndarray:
        middle = self.min_samples / 2
        return (np.arange(num_frames) * self.stride + middle) / self.sample_rate

    @property
    @override
    def min_samples(self) -> int:
        return field_and_stride(self.convolutions)[0]

    @property
    @override
    def stride(self) -> int:
        return field_and_stride(self.convolutions)[1]

    @override
    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self.model.modules():  # over the batch: it would mix its clips
            if isinstance(part, _BatchNorm):  # on several ranks SpeechBrain makes SyncBatchNorm
                part.eval()
        return self

    @override
    def checkpoint_activations(self) -> None:
        super().checkpoint_activations()
        self.recompute = True

    @override
    def _layers_and_owner(self) -> tuple[torch.nn.ModuleList, Any]:
        encoder = self.model.encoder
        # With layer norms before the layers, one follows the last of them.
        is_last = getattr(self.model.config, "do_stable_layer_norm", False)
        return encoder.layers, torch.nn.ModuleList([encoder.layer_norm] if is_last else [])
