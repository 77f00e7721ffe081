"""Dropout on a CPU, from random numbers that are cheap."""

import numpy as np
import torch
from torch.autograd.function import once_differentiable

LEVELS = 2**16  # of a random number of 16 bits


def dropout(x, p):
    """``torch.nn.functional.dropout`` in training, on a CPU.

    torch 2.11 draws each element's Bernoulli number with the Mersenne Twister, on one thread,
    unless the processor is Intel's: half of the forward of a conformer 576 wide. Here 16 bits
    of SFC64 decide, whose seed is a draw of torch's global generator.

    Arguments
    ---------
    x : torch.Tensor
        Of any shape, on the CPU.
    p : float
        Share that becomes zero, from 0 to below 1; taken as a multiple of 2 ** -16, by which the
        rest is scaled as well.

    Returns
    -------
    y : torch.Tensor
        Of the shape and dtype of x.

    Example
    -------
    >>> y = dropout(torch.ones(100, 100), 0.5)
    >>> y.unique(), bool(4500 < y.count_nonzero() < 5500)
    (tensor([0., 2.]), True)
    """
    return Dropout.apply(x, round(p * LEVELS))


class Dropout(torch.autograd.Function):
    """Keeps one byte per element for the backward."""

    @staticmethod
    def forward(ctx, x, dropped_levels):
        """Draws, and scales what stays."""
        generator = np.random.Generator(np.random.SFC64(int(torch.randint(2**62, ()))))
        draws = generator.integers(LEVELS, size=x.shape, dtype=np.uint16)
        dropped = torch.from_numpy(draws < dropped_levels)
        ctx.save_for_backward(dropped)
        ctx.scale = LEVELS / (LEVELS - dropped_levels)
        return x.masked_fill(dropped, 0.0).mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        """The same for the gradient."""
        (dropped,) = ctx.saved_tensors
        return grad.masked_fill(dropped, 0.0).mul_(ctx.scale), None
