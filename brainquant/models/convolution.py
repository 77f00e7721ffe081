"""Convolutions over time whose inputs and outputs are (batch, frames, channels).

Shape suffixes: B batch, T frames, S frames after the stride, C channels, O output channels,
K taps of the kernel.
"""

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable


def convolution(
    x_BTC: torch.Tensor,
    weight_OCK: torch.Tensor,
    stride: int,
    bias_O: torch.Tensor | None = None,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> torch.Tensor:
    """``conv1d`` from channels-last to channels-last.

    SpeechBrain 1.1.2 transposes before and after ``torch.nn.Conv1d``, so all later layers work on
    transposed memory: layer norm copies it, and GELU's backward takes several times as long. This
    function uses the kernels for channels-last images, with images that are one pixel high.

    Arguments
    ---------
    x_BTC : torch.Tensor
        Frames, shape (batch, frames, channels).
    weight_OCK : torch.Tensor
        As in ``torch.nn.Conv1d``, shape (output channels, channels, taps).
    stride : int
        Frames from one output to the next.
    bias_O : torch.Tensor or None
        Bias of the output channels.
    padding : int
        Number of zeros before the first frame and after the last.
    dilation : int
        Frames from one tap to the next.
    groups : int
        Groups of channels; a depthwise convolution has as many groups as channels.

    Returns
    -------
    y_BSO : torch.Tensor
        Contiguous, shape (batch, (frames - taps) // stride + 1, output channels) without padding
        and dilation.

    Example
    -------
    >>> x, weight = torch.arange(5.0).view(1, 5, 1), torch.ones(1, 1, 3)
    >>> convolution(x, weight, 2).flatten()
    tensor([3., 9.])
    """
    if x_BTC.shape[2] == 1 and dilation == 1:  # convolutions of one channel are slow on CPUs
        windows_BSK = F.pad(x_BTC[..., 0], (padding, padding)).unfold(
            1, weight_OCK.shape[2], stride
        )
        return WindowsTimesKernel.apply(windows_BSK, weight_OCK[:, 0], bias_O)
    y_BO1S = F.conv2d(
        as_image(x_BTC), as_kernel(weight_OCK), bias_O, (1, stride), (0, padding), (1, dilation),
        groups,
    )  # fmt: skip
    return y_BO1S[:, :, 0].transpose(1, 2)


class WindowsTimesKernel(torch.autograd.Function):
    """A convolution of one channel, as a product of its windows; it keeps only views of them.

    Windows have the shape (..., taps) or (..., taps, taps), and the kernel (output channels, ...).
    """

    @staticmethod
    def forward(ctx, windows, kernel, bias):
        """Copies the windows, and frees the copy after the product."""
        ctx.save_for_backward(windows, kernel)
        ctx.has_bias = bias is not None
        return F.linear(windows.flatten(1 - kernel.dim()), kernel.flatten(1), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        """Copies the windows of one utterance at a time, for the gradient of the kernel."""
        windows, kernel = ctx.saved_tensors
        wants_windows, wants_kernel, _ = ctx.needs_input_grad
        grad_windows = grad_kernel = None
        if wants_windows:
            grad_windows = (grad @ kernel.flatten(1).to(grad.dtype)).view(windows.shape)
        if wants_kernel:
            grad_kernel = torch.zeros_like(kernel.flatten(1))
            for grad_NO, windows_NK in zip(grad.flatten(1, -2), windows, strict=True):
                windows_NK = windows_NK.flatten(1 - kernel.dim()).flatten(0, -2).to(grad.dtype)
                grad_kernel += grad_NO.T @ windows_NK
            grad_kernel = grad_kernel.view(kernel.shape)
        return grad_windows, grad_kernel, grad.flatten(0, -2).sum(0) if ctx.has_bias else None


def reflect_after(x_BTC: torch.Tensor, lengths_B: torch.Tensor, reach: int) -> torch.Tensor:
    """The frames of each utterance, with their mirror image instead of padding.

    Arguments
    ---------
    x_BTC : torch.Tensor
        Frames, shape (batch, frames, channels).
    lengths_B : torch.Tensor
        Valid frames of each utterance.
    reach : int
        Number of frames to add after the longest utterance.

    Returns
    -------
    x_BTC : torch.Tensor
        Shape (batch, frames + reach, channels).

    Example
    -------
    >>> x = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 9.0]])[..., None]
    >>> reflect_after(x, torch.tensor([3, 2]), 1)[..., 0]
    tensor([[1., 2., 3., 2.],
            [1., 2., 1., 1.]])
    """
    last_B1 = lengths_B[:, None] - 1
    frame_T = torch.arange(x_BTC.shape[1] + reach, device=x_BTC.device)
    frame_BT = (last_B1 - (last_B1 - frame_T).abs()).clamp(min=0)
    return x_BTC.take_along_dim(frame_BT[..., None], dim=1)


def as_image(x_BTC: torch.Tensor) -> torch.Tensor:
    """The same memory as a channels-last image, shape (batch, channels, 1, frames)."""
    return x_BTC[:, None].permute(0, 3, 1, 2)


def as_kernel(weight_OCK: torch.Tensor) -> torch.Tensor:
    """The weight as a channels-last kernel, shape (output channels, channels, 1, taps)."""
    return weight_OCK[:, :, None].contiguous(memory_format=torch.channels_last)
