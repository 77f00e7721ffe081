"""The convolution of a waveform, with the group norm that may follow it, on a CPU.

Shape suffixes: L samples, T frames, O output channels, C input channels, K taps of the kernel, X
taps and one column for the bias.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

GROUP, LAYER = "group", "layer"


class NormedConvolution(NamedTuple):
    """A convolution and the norm that follows it; a GELU follows the norm."""

    weight_OCK: torch.Tensor
    stride: int
    bias_O: torch.Tensor | None = None
    norm: str | None = None  # GROUP: of each channel over time; LAYER: over the channels
    scale_O: torch.Tensor | None = None  # weight of the norm
    shift_O: torch.Tensor | None = None  # bias of the norm
    eps: float = 1e-5

    @property
    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        return self.weight_OCK, self.bias_O, self.scale_O, self.shift_O

    def count_frames(self, frames: int) -> int:
        """Frames of the output."""
        return max(0, (frames - self.weight_OCK.shape[2]) // self.stride + 1)


class FirstConvolution:
    """The convolution of one channel, and its group norm if it has one.

    Its outputs are never kept: ``first[start:stop]`` computes some of them. A group norm becomes
    part of the kernel, since the mean and the variance of a channel follow from those of the
    windows.

    Attributes
    ----------
    gradients : list of torch.Tensor or None
        Of kernel, bias, and weight and bias of the group norm: summed over utterances.
    """

    def __init__(self, convolution: NormedConvolution) -> None:
        self.convolution = convolution
        self.is_normed = convolution.norm == GROUP
        kernel_OK = convolution.weight_OCK[:, 0]
        bias_O = convolution.bias_O
        bias_O = kernel_OK.new_zeros(len(kernel_OK)) if bias_O is None else bias_O
        self.own_kernel_OX = torch.cat([kernel_OK, bias_O[:, None]], dim=1)
        self.gradients = zeros_of(convolution)

    def begin(self, wav_L: torch.Tensor) -> None:
        """Begins an utterance."""
        stride, taps = self.convolution.stride, self.own_kernel_OX.shape[1] - 1
        frames = self.convolution.count_frames(len(wav_L))
        self.windows_TX = wav_L.new_ones(frames, taps + 1)  # the last column is for the bias
        if frames:
            self.windows_TX[:, :taps] = wav_L.unfold(0, taps, stride)
        self.kernel_OX = self.own_kernel_OX
        self.kernel_grad_OX = torch.zeros_like(self.kernel_OX)
        if self.is_normed:
            assert self.convolution.scale_O is not None and self.convolution.shift_O is not None
            windows_TX, kernel_OX = self.windows_TX.double(), self.kernel_OX.double()
            self.window_mean_X = windows_TX.sum(0) / max(1, frames)
            windows_TX = windows_TX - self.window_mean_X
            self.covariance_XX = windows_TX.T @ windows_TX / max(1, frames)
            variance_O = ((kernel_OX @ self.covariance_XX) * kernel_OX).sum(1)
            self.rstd_O = (variance_O + self.convolution.eps).rsqrt()
            self.factor_O1 = (self.convolution.scale_O * self.rstd_O)[:, None]
            kernel_OX = kernel_OX * self.factor_O1
            kernel_OX[:, -1] += self.convolution.shift_O - kernel_OX @ self.window_mean_X
            self.kernel_OX = kernel_OX.to(self.own_kernel_OX)

    def __len__(self) -> int:
        return len(self.windows_TX)

    def __getitem__(self, frames: slice) -> torch.Tensor:
        return self.windows_TX[frames] @ self.kernel_OX.T

    def add_gradient(self, frames: slice, grad_TO: torch.Tensor) -> None:
        """Adds a gradient of some outputs; the same outputs may get several."""
        self.kernel_grad_OX.addmm_(grad_TO.T, self.windows_TX[frames])

    def end(self) -> None:
        """Adds the gradients of the parameters, when all outputs of the utterance have theirs."""
        grad_OX = self.kernel_grad_OX
        if self.is_normed:
            # With y = scale * z + shift and z = (x - mean) * rstd, the gradient of x is that of y
            # without its mean and without its part along z, times scale * rstd.
            grad_OX, kernel_OX = grad_OX.double(), self.own_kernel_OX.double()
            of_shift_O = grad_OX[:, -1].clone()
            centred_OX = grad_OX - of_shift_O[:, None] * self.window_mean_X
            of_scale_O = self.rstd_O * (centred_OX * kernel_OX).sum(1)
            along_OX = self.rstd_O[:, None] * (kernel_OX @ self.covariance_XX)
            grad_OX = self.factor_O1 * (centred_OX - of_scale_O[:, None] * along_OX)
            self._add(of_scale_O, 2)
            self._add(of_shift_O, 3)
        self._add(grad_OX[:, None, :-1], 0)
        if self.convolution.bias_O is not None:
            self._add(grad_OX[:, -1], 1)

    def _add(self, gradient: torch.Tensor, number: int) -> None:
        total = self.gradients[number]
        assert total is not None
        total += gradient


def zeros_of(convolution: NormedConvolution) -> list[torch.Tensor | None]:
    """Zeros like the tensors of a convolution."""
    return [None if t is None else torch.zeros_like(t) for t in convolution.tensors]
