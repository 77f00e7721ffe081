"""Keeps buffers unchanged by a step that is left out."""

import torch


class BufferCopies:
    """Copies of the buffers of modules, as the last good step left them.

    Example
    -------
    >>> norm = torch.nn.BatchNorm1d(1)
    >>> copies = BufferCopies(norm)
    >>> _ = norm(torch.tensor([[1.0], [float("nan")]]))
    >>> copies.keep_if(torch.tensor(False))
    >>> norm.running_mean, norm.num_batches_tracked
    (tensor([0.]), tensor(0))
    """

    def __init__(self, modules: torch.nn.Module) -> None:
        # Copied in each step: batch norms change theirs without counting up `_version`.
        self.buffers = list(modules.buffers())
        self.copies = [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()  # a library's quantiser may have buffers with gradients
    def keep_if(self, good: torch.Tensor) -> None:
        """After a good step copies the buffers, else restores them; does not wait for ``good``."""
        for buffer, copy in zip(self.buffers, self.copies):
            copy.copy_(torch.where(good, buffer, copy))
            buffer.copy_(copy)
