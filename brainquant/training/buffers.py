"""Buffers that a step which is left out does not change."""

import torch


class BufferCopies:
    """Buffers as the last good step left them.

    Arguments
    ---------
    modules : torch.nn.Module
        Whose buffers are kept.

    Example
    -------
    >>> norm = torch.nn.BatchNorm1d(1)
    >>> copies = BufferCopies(norm)
    >>> _ = norm(torch.tensor([[1.0], [float("nan")]]))
    >>> copies.keep_if(torch.tensor(False))
    >>> norm.running_mean, norm.num_batches_tracked
    (tensor([0.]), tensor(0))
    """

    def __init__(self, modules):
        # All of them in each step: batch norms change theirs without counting up `_version`.
        self.buffers = list(modules.buffers())
        self.copies = [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()  # a library's quantiser may have buffers with gradients
    def keep_if(self, good):
        """Remembers the buffers, or gives them the values of the last good step.

        Arguments
        ---------
        good : torch.Tensor
            Whether this step was good; nothing waits for it.
        """
        for buffer, copy in zip(self.buffers, self.copies):
            copy.copy_(torch.where(good, buffer, copy))
            buffer.copy_(copy)
