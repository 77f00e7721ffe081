"""Convolutions over time as matrix products, of one utterance after another, on a CPU.

Shape suffixes: B batch, L samples, T frames, S frames after the stride, C channels, O output
channels, X taps times channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from .first_convolution import LAYER, FirstConvolution, NormedConvolution, zeros_of

# So many output frames are computed at once: what is between two convolutions stays in the cache.
CHUNK = 500


class Convolutions(torch.autograd.Function):
    """``convolve_utterances``, for training."""

    @staticmethod
    def forward(ctx, wavs_BL, samples_B, convolutions, first_kept, *tensors):
        """Keeps the outputs of the convolutions from ``first_kept`` to the last but one."""
        y_BSO, kept = convolve_utterances(wavs_BL, samples_B, convolutions, first_kept)
        ctx.save_for_backward(wavs_BL, samples_B, *tensors, *kept)
        ctx.constants = [(c.stride, c.norm, c.eps) for c in convolutions]
        ctx.first_kept = first_kept
        return y_BSO

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BSO):
        """Computes what was not kept again, in the same pieces."""
        wavs_BL, samples_B, *saved = ctx.saved_tensors
        convolutions = []
        for stride, norm, eps in ctx.constants:
            weight, bias, scale, shift, *saved = saved
            convolutions.append(NormedConvolution(weight, stride, bias, norm, scale, shift, eps))
        first, steps = make_steps(convolutions)
        kept = iter(saved)
        for wav_L, samples, grad_SO in zip(wavs_BL, samples_B.tolist(), grad_BSO, strict=True):
            first.begin(wav_L[:samples])
            inputs: list[FirstConvolution | torch.Tensor] = [first]
            for number, step in enumerate(steps[:-1], start=1):
                again = number < ctx.first_kept
                inputs.append(step.forward(inputs[-1]) if again else next(kept))
            for step, x_TC in zip(reversed(steps), reversed(inputs), strict=True):
                grad_SO = step.backward(x_TC, grad_SO)
            first.end()
        gradients = [first.gradients, *(step.gradients for step in steps)]
        for of_before, step in zip(gradients, steps):
            if step.before.norm == LAYER:
                of_before[2:] = step.norm_gradients
        return None, None, None, None, *sum(gradients, [])


def convolve_utterances(
    wavs_BL: torch.Tensor,
    samples_B: torch.Tensor,
    convolutions: Sequence[NormedConvolution],
    first_kept: int | None = None,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Outputs of the last convolution, (batch, frames, channels), with zeros after each utterance.

    Also gives what ``Convolutions`` keeps for its backward.
    """
    first, steps = make_steps(convolutions)
    frames, kept = wavs_BL.shape[1], []
    for convolution in convolutions:
        frames = convolution.count_frames(frames)
    y_BSO = wavs_BL.new_zeros(len(wavs_BL), frames, len(convolutions[-1].weight_OCK))
    for wav_L, samples, y_SO in zip(wavs_BL, samples_B.tolist(), y_BSO, strict=True):
        first.begin(wav_L[:samples])
        x_TC: FirstConvolution | torch.Tensor = first
        for number, step in enumerate(steps, start=1):
            x_TC = step.forward(x_TC)
            if first_kept is not None and first_kept <= number < len(steps):
                kept.append(x_TC)
        assert isinstance(x_TC, torch.Tensor), "there are several convolutions"
        y_SO[: len(x_TC)] = x_TC
    return y_BSO, kept


def make_steps(convolutions: Sequence[NormedConvolution]) -> tuple[FirstConvolution, list[Step]]:
    """The first convolution, and one step for each of the others."""
    return FirstConvolution(convolutions[0]), [Step(*pair) for pair in pairwise(convolutions)]


class Step:
    """The norm of one convolution, a GELU, and the next convolution.

    Attributes
    ----------
    norm_gradients : list of torch.Tensor or None
        Of weight and bias of the layer norm, summed over utterances.
    """

    def __init__(self, before: NormedConvolution, after: NormedConvolution) -> None:
        self.before, self.after = before, after
        weight_OCK, self.stride = after.weight_OCK, after.stride
        self.outputs, self.channels, self.taps = weight_OCK.shape
        # The taps of each stride are one matrix: the frames that it reads are neighbours.
        starts = range(0, self.taps, self.stride)
        kernel_KCO = weight_OCK.permute(2, 1, 0).contiguous()
        self.matrices = [kernel_KCO[i : i + self.stride].flatten(0, 1) for i in starts]
        self.matrix_gradients = [torch.zeros_like(m) for m in self.matrices]
        self.bias_gradient = None if after.bias_O is None else torch.zeros_like(after.bias_O)
        self.norm_gradients = zeros_of(before)[2:]

    @property
    def gradients(self) -> list[torch.Tensor | None]:
        """Of kernel, bias, and None for the norm that follows, summed over utterances."""
        kernel_KCO = torch.cat(self.matrix_gradients).view(self.taps, self.channels, self.outputs)
        return [kernel_KCO.permute(2, 1, 0).contiguous(), self.bias_gradient, None, None]

    def forward(self, x_TC: FirstConvolution | torch.Tensor) -> torch.Tensor:
        """Outputs of the second convolution, from those of the first."""
        y_SO = self.matrices[0].new_empty(self.after.count_frames(len(x_TC)), self.outputs)
        for made, seen in self._chunks(len(y_SO)):
            activated_TC = F.gelu(self._norm(x_TC[seen])[0])
            for number, (rows_SX, matrix_XO) in enumerate(self._products(activated_TC)):
                if number:
                    y_SO[made].addmm_(rows_SX, matrix_XO)
                elif self.after.bias_O is not None:
                    torch.addmm(self.after.bias_O, rows_SX, matrix_XO, out=y_SO[made])
                else:
                    torch.mm(rows_SX, matrix_XO, out=y_SO[made])
        return y_SO

    def backward(
        self, x_TC: FirstConvolution | torch.Tensor, grad_SO: torch.Tensor
    ) -> torch.Tensor:
        """The gradient of the outputs of the first convolution; adds those of the parameters."""
        frames = self.after.count_frames(len(x_TC))
        is_first = isinstance(x_TC, FirstConvolution)
        grad_TC = self.matrices[0].new_zeros(0 if is_first else len(x_TC), self.channels)
        for made, seen in self._chunks(frames):
            grad_1SO, x_1TC = grad_SO[made], x_TC[seen]
            normed_TC, *statistics = self._norm(x_1TC)
            activated_TC = F.gelu(normed_TC)
            grad_1TC = torch.zeros_like(activated_TC)
            rows = zip(self._products(activated_TC), self._products(grad_1TC))
            for number, ((rows_SX, matrix_XO), (grad_SX, _)) in enumerate(rows):
                self.matrix_gradients[number].addmm_(rows_SX.T, grad_1SO)
                grad_SX.addmm_(grad_1SO, matrix_XO.T)
            if self.bias_gradient is not None:
                self.bias_gradient += grad_1SO.sum(0)
            grad_1TC = torch.ops.aten.gelu_backward(grad_1TC, normed_TC)
            if self.before.norm == LAYER:
                grad_1TC, *of_norm = torch.ops.aten.native_layer_norm_backward(
                    grad_1TC, x_1TC, (self.channels,), *statistics, self.before.scale_O,
                    self.before.shift_O, (True, True, True),
                )  # fmt: skip
                for total, gradient in zip(self.norm_gradients, of_norm):
                    total += gradient
            if is_first:
                x_TC.add_gradient(seen, grad_1TC)
            else:
                grad_TC[seen] += grad_1TC  # the next chunk reads the last frames, too
        return grad_TC

    def _norm(self, x_TC: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Normed frames, and mean and reciprocal deviation of each."""
        if self.before.norm != LAYER:
            return (x_TC,)
        scale_C, shift_C, eps = self.before.scale_O, self.before.shift_O, self.before.eps
        return torch.native_layer_norm(x_TC, (self.channels,), scale_C, shift_C, eps)

    def _chunks(self, frames: int) -> Iterator[tuple[slice, slice]]:
        """For each chunk its output frames and the input frames that they need."""
        for start in range(0, frames, CHUNK):
            stop = min(start + CHUNK, frames)
            last = (stop - 1) * self.stride + self.taps
            yield slice(start, stop), slice(start * self.stride, last)

    def _products(self, x_TC: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Frames of each output side by side, as views, and the matrix that they meet."""
        frames = (len(x_TC) - self.taps) // self.stride + 1
        width = self.stride * self.channels
        for number, matrix_XO in enumerate(self.matrices):
            shape, start = (frames, len(matrix_XO)), x_TC.storage_offset() + number * width
            yield x_TC.as_strided(shape, (width, 1), start), matrix_XO
