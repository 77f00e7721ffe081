"""The convolutions that make latents of waveforms in wav2vec 2.0.

Shape suffixes: B batch, L samples, T frames, C channels.
"""

import math
from typing import Any

import torch
from speechbrain.lobes.models.wav2vec import W2VLatentExtractor
from torch.nn import Dropout
from torch.utils.checkpoint import checkpoint

from ..masking import lengths_to_mask
from .features import normalise_utterances
from .first_convolution import LAYER, NormedConvolution
from .latents import make_latents


class ScaleGradient(torch.autograd.Function):
    """The identity, with a gradient that is multiplied by a factor."""

    @staticmethod
    def forward(ctx, x, factor):
        """Returns x itself."""
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        """The gradient times the factor."""
        return grad * ctx.factor, None


class Wav2Vec2Extractor(W2VLatentExtractor):
    """SpeechBrain's convolutional extractor with wav2vec 2.0's penalty and gradient scaling.

    The paper multiplies the extractor's gradients by 0.1 and penalises the squared activations
    of its last convolution (https://arxiv.org/abs/2006.11477; the weight of 10 is fairseq's).
    SpeechBrain 1.1.2 does neither, and returns them only after a layer norm, which hides their
    size. Arguments, layers and ``state_dict`` are those of ``W2VLatentExtractor``.

    Arguments
    ---------
    gradient_scale : float
        Factor of the gradient that reaches the extractor.
    **kwargs : dict
        Arguments of ``speechbrain.lobes.models.wav2vec.W2VLatentExtractor``.

    Example
    -------
    >>> extractor = Wav2Vec2Extractor(out_channels=[8] * 7)
    >>> latents, penalty = extractor(torch.rand(2, 5000), torch.tensor([5000, 2500]))
    >>> latents.shape, bool(penalty > 0)
    (torch.Size([2, 14, 8]), True)
    """

    recompute = False  # whether the backward computes activations again, for less memory

    def __init__(self, gradient_scale: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(gradient_scale, (int, float)) or not 0 <= gradient_scale < math.inf:
            raise ValueError(
                f"gradient_scale must be a number from 0 up, got {gradient_scale!r}; set "
                f"gradient_scale: of the extractor in your YAML, as in gradient_scale: 0.1"
            )
        self.gradient_scale = gradient_scale

    def field_and_stride(self) -> tuple[int, int]:
        """Samples that a frame sees, and samples from one frame to the next."""
        field, stride = 1, 1
        for kernel, step in zip(self.kernel_sizes, self.strides):
            field, stride = field + (kernel - 1) * stride, stride * step
        return field, stride

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]: other arguments on purpose
        self, wavs_BL: torch.Tensor, lengths_B: torch.LongTensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents and their penalty.

        Arguments
        ---------
        wavs_BL : torch.Tensor
            Waveforms, shape (batch, samples).
        lengths_B : torch.Tensor
            Samples of each utterance.

        Returns
        -------
        latents_BTC : torch.Tensor
            After the layer norm, shape (batch, frames, channels).
        penalty : torch.Tensor
            Mean square of the activations before it, over valid frames.

        Raises
        ------
        ValueError
            If no clip is long enough for a frame.
        """
        field, _ = self.field_and_stride()
        if wavs_BL.shape[1] < field:
            raise ValueError(
                f"a frame of the extractor sees {field} samples, but the longest clip has "
                f"{wavs_BL.shape[1]}; leave out clips with fewer than {field} samples"
            )
        wavs_BL = normalise_utterances(wavs_BL, lengths_B)
        latents_BTC = self.convolve(wavs_BL, lengths_B)
        if self.gradient_scale != 1.0:
            latents_BTC = ScaleGradient.apply(latents_BTC, self.gradient_scale)
        frames_B = self.get_output_lengths(lengths_B).clamp(min=0)
        valid_BT = lengths_to_mask(frames_B, latents_BTC.shape[1])
        squares_BT = latents_BTC.float().square().mean(-1)
        penalty = (squares_BT * valid_BT).sum() / valid_BT.sum().clamp(min=1)
        return self.norm(latents_BTC), penalty

    def convolve(
        self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The outputs of ``self.extractor``, computed by ``make_latents``.

        Arguments
        ---------
        wavs_BL : torch.Tensor
            Waveforms, normalised, shape (batch, samples).
        lengths_B : torch.Tensor or None
            Samples of each, None for all.

        Returns
        -------
        latents_BTC : torch.Tensor
            Shape (batch, frames, channels).
        """
        if self.training and any(isinstance(m, Dropout) and m.p for m in self.extractor.modules()):
            if self.recompute and torch.is_grad_enabled():
                return checkpoint(self.extractor, wavs_BL[..., None], use_reentrant=False)
            return self.extractor(wavs_BL[..., None])
        if lengths_B is None:
            lengths_B = torch.full((len(wavs_BL),), wavs_BL.shape[1], device=wavs_BL.device)
        layers: list[Any] = list(self.extractor.children())
        convolutions = []
        for layer in layers:
            conv, norm, _ = list(layer.convs.children())[:3]
            convolutions.append(
                NormedConvolution(
                    conv.conv.weight, conv.stride, None, LAYER, norm.norm.weight, norm.norm.bias,
                    norm.norm.eps,
                )
            )  # fmt: skip
        recompute = self.training and self.recompute
        return make_latents(wavs_BL, lengths_B, convolutions, recompute=recompute)
