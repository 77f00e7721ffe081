"""Convolution over time of frames that stay (batch, frames, channels).

Shape suffixes: B batch, T frames, S frames after the stride, C channels, O output channels,
K taps of the kernel.
"""

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

# Frames of the output in one call of the backward. With all at once, oneDNN (torch 2.9) takes up
# to twice as long for the gradient of the weights.
CHUNK = 1000


def strided_convolution(x_BTC, weight_OCK, stride):
    """``conv1d`` without padding or bias, from channels-last to channels-last.

    Around ``torch.nn.Conv1d`` SpeechBrain 1.1.2 transposes twice, and all that follows works on
    transposed memory: layer norm copies it, GELU's backward takes several times as long. Here
    the kernels for channels-last images are used, for images that are one pixel high.

    Arguments
    ---------
    x_BTC : torch.Tensor
        Frames, shape (batch, frames, channels).
    weight_OCK : torch.Tensor
        As in ``torch.nn.Conv1d``, shape (output channels, channels, taps).
    stride : int
        Frames from one output to the next.

    Returns
    -------
    y_BSO : torch.Tensor
        Contiguous, shape (batch, (frames - taps) // stride + 1, output channels).

    Example
    -------
    >>> x, weight = torch.arange(5.0).view(1, 5, 1), torch.ones(1, 1, 3)
    >>> strided_convolution(x, weight, 2).flatten()
    tensor([3., 9.])
    """
    if x_BTC.shape[2] == 1:
        windows_BSK = x_BTC[..., 0].unfold(1, weight_OCK.shape[2], stride)
        return F.linear(windows_BSK, weight_OCK[:, 0])
    device = x_BTC.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x_BTC, weight_OCK = x_BTC.to(dtype), weight_OCK.to(dtype)
    if device != "cpu":
        return convolve(x_BTC, weight_OCK, stride)
    return CPUConvolution.apply(x_BTC, weight_OCK, stride)


def convolve(x_BTC, weight_OCK, stride):
    """The convolution, of several channels."""
    y_BO1S = F.conv2d(as_image(x_BTC), as_kernel(weight_OCK), stride=(1, stride))
    return y_BO1S[:, :, 0].transpose(1, 2)


class CPUConvolution(torch.autograd.Function):
    """``convolve`` with a backward for oneDNN."""

    @staticmethod
    def forward(ctx, x_BTC, weight_OCK, stride):
        """All frames at once."""
        ctx.save_for_backward(x_BTC, weight_OCK)
        ctx.stride = stride
        return convolve(x_BTC, weight_OCK, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BSO):
        """A few frames of one utterance at a time."""
        x_BTC, weight_OCK = ctx.saved_tensors
        kernel_OC1K, taps = as_kernel(weight_OCK), weight_OCK.shape[2]
        wanted = ctx.needs_input_grad[0], ctx.needs_input_grad[1], False
        grad_x_BTC = torch.zeros_like(x_BTC) if wanted[0] else None
        grad_kernel_OC1K = torch.zeros_like(kernel_OC1K) if wanted[1] else None
        for utterance in range(len(x_BTC)):
            for start in range(0, grad_BSO.shape[1], CHUNK):
                grad_1SO = grad_BSO[utterance, None, start : start + CHUNK]
                first = start * ctx.stride
                seen = slice(first, first + (grad_1SO.shape[1] - 1) * ctx.stride + taps)
                grad_image, grad_kernel, _ = torch.ops.aten.convolution_backward(
                    as_image(grad_1SO), as_image(x_BTC[utterance, None, seen]), kernel_OC1K, None,
                    (1, ctx.stride), (0, 0), (1, 1), False, (0, 0), 1, wanted,
                )  # fmt: skip
                if wanted[0]:  # windows overlap where one chunk meets the next
                    grad_x_BTC[utterance, seen] += grad_image[0, :, 0].T
                if wanted[1]:
                    grad_kernel_OC1K += grad_kernel
        grad_weight_OCK = grad_kernel_OC1K[:, :, 0] if wanted[1] else None
        return grad_x_BTC, grad_weight_OCK, None


def as_image(x_BTC):
    """The same memory as a channels-last image, shape (batch, channels, 1, frames)."""
    return x_BTC[:, None].permute(0, 3, 1, 2)


def as_kernel(weight_OCK):
    """The weight as a channels-last kernel, shape (output channels, channels, 1, taps)."""
    return weight_OCK[:, :, None].contiguous(memory_format=torch.channels_last)
