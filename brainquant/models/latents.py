"""Latents of waveforms: the convolutions, norms and GELUs of wav2vec 2.0.

Shape suffixes: B batch, L samples, T frames, C channels, O output channels, K taps of the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from ..masking import lengths_to_mask
from .convolution import convolution
from .first_convolution import GROUP, LAYER, NormedConvolution
from .matrix_convolutions import Convolutions, convolve_utterances


def make_latents(
    wavs_BL: torch.Tensor,
    samples_B: torch.Tensor,
    convolutions: Sequence[NormedConvolution],
    *,
    recompute: bool = False,
) -> torch.Tensor:
    """Latents of each waveform, which do not depend on its padding: as if it were alone.

    On a CPU each convolution is a few matrix products of one utterance. The backward gets the
    outputs of all convolutions but the first and the last, and computes all else again.

    Arguments
    ---------
    wavs_BL : torch.Tensor
        Waveforms, shape (batch, samples). One of them at least is long enough for a frame.
    samples_B : torch.Tensor
        Samples of each.
    convolutions : sequence of NormedConvolution
        The first has one input channel. Only the first of several may have a group norm.
    recompute : bool
        Whether the backward also computes the outputs of the second and the third convolution
        again, which are three quarters of the memory.

    Returns
    -------
    latents_BTC : torch.Tensor
        Shape (batch, frames, channels).

    Example
    -------
    >>> ones, zeros = torch.ones(2), torch.zeros(2)
    >>> first = NormedConvolution(torch.ones(2, 1, 2), 1, norm="group", scale_O=ones, shift_O=zeros)
    >>> second = NormedConvolution(torch.ones(1, 2, 1), 2)
    >>> wavs_BL = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 9.0]])
    >>> both = make_latents(wavs_BL, torch.tensor([4, 3]), [first, second])
    >>> alone = make_latents(wavs_BL[1:, :3], torch.tensor([3]), [first, second])
    >>> torch.equal(both[1, :1], alone[0])
    True
    """
    *_, last = convolutions
    x_BTC = _convolve(wavs_BL, samples_B, convolutions, recompute)
    if last.norm == LAYER:
        x_BTC = F.layer_norm(x_BTC, x_BTC.shape[2:], last.scale_O, last.shift_O, last.eps)
    return F.gelu(x_BTC)


def _convolve(
    wavs_BL: torch.Tensor,
    samples_B: torch.Tensor,
    convolutions: Sequence[NormedConvolution],
    recompute: bool,
) -> torch.Tensor:
    """Outputs of the last convolution."""
    on_cpu = wavs_BL.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if on_cpu and len(convolutions) > 1 and not wavs_BL.requires_grad:
        tensors = [tensor for convolution in convolutions for tensor in convolution.tensors]
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
            first_kept = min(3, len(convolutions)) if recompute else 1
            return Convolutions.apply(wavs_BL, samples_B, convolutions, first_kept, *tensors)
        return convolve_utterances(wavs_BL, samples_B, convolutions)[0]
    first, *_ = convolutions
    frames_B = (samples_B - first.weight_OCK.shape[2]) // first.stride + 1
    x_BTC = convolution(wavs_BL[..., None], first.weight_OCK, first.stride, first.bias_O)
    for before, after in pairwise(convolutions):
        inputs = x_BTC, frames_B, before, after
        if recompute and torch.is_grad_enabled():
            x_BTC = checkpoint(norm_gelu_convolution, *inputs, use_reentrant=False)
        else:
            x_BTC = norm_gelu_convolution(*inputs)
    return x_BTC


def norm_gelu_convolution(
    x_BTC: torch.Tensor,
    frames_B: torch.Tensor,
    before: NormedConvolution,
    after: NormedConvolution,
) -> torch.Tensor:
    """The norm after one convolution, a GELU, and the next convolution.

    A group norm has mean and variance of the ``frames_B`` valid frames only.
    """
    if before.norm == LAYER:
        x_BTC = F.layer_norm(x_BTC, x_BTC.shape[2:], before.scale_O, before.shift_O, before.eps)
    elif before.norm == GROUP:
        assert before.scale_O is not None and before.shift_O is not None
        x_BTC, valid_BT1 = x_BTC.float(), lengths_to_mask(frames_B, x_BTC.shape[1])[..., None]
        count_B11 = frames_B.clamp(min=1)[:, None, None]
        mean_B1C = (x_BTC * valid_BT1).sum(1, keepdim=True) / count_B11
        squares_B1C = ((x_BTC - mean_B1C) * valid_BT1).square().sum(1, keepdim=True)
        scale_B1C = before.scale_O * (squares_B1C / count_B11 + before.eps).rsqrt()
        x_BTC = torch.addcmul(before.shift_O - mean_B1C * scale_B1C, x_BTC, scale_B1C)
    return convolution(F.gelu(x_BTC), after.weight_OCK, after.stride, after.bias_O)
