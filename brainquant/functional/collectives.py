"""Sums and gathers over the ranks of a run; with one process they change nothing.

Shape suffixes: B batches of a rank, R ranks, F frames of a batch, N frames of all, D dim.
"""

from collections.abc import Sequence

import torch
from torch import distributed


def rank_and_size() -> tuple[int, int]:
    """The rank of this process, and the number of processes."""
    if distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Sums the tensor over all ranks, in place, and gives it back."""
    if distributed.is_initialized():
        distributed.all_reduce(tensor)
    return tensor


def gather_batches(batches: Sequence[torch.Tensor]) -> torch.Tensor:
    """The frames of the batches of all ranks, in the order of a run on one rank.

    Batch k of a run goes to rank k modulo the number of ranks. So the first batches of all ranks
    come first.

    Arguments
    ---------
    batches : list of torch.Tensor
        The batches of this rank, each of shape (frames, dim); the same number on every rank.

    Returns
    -------
    frames_ND : torch.Tensor

    Example
    -------
    >>> gather_batches([torch.ones(2, 3), torch.zeros(0, 3)]).shape
    torch.Size([2, 3])
    """
    rank, ranks = rank_and_size()
    if ranks == 1:
        return torch.cat(list(batches))
    sizes_BR = torch.zeros(len(batches), ranks, dtype=torch.long, device=batches[0].device)
    sizes_BR[:, rank] = torch.tensor([len(batch) for batch in batches])
    sizes_BR = sum_over_ranks(sizes_BR).tolist()
    longest = max(map(max, sizes_BR))
    own_BFD = batches[0].new_zeros(len(batches), longest, batches[0].shape[1])
    for b, batch in enumerate(batches):
        own_BFD[b, : len(batch)] = batch
    others = [torch.empty_like(own_BFD) for _ in range(ranks)]
    distributed.all_gather(others, own_BFD)
    return torch.cat(
        [
            batches_BFD[b, :size]
            for b, sizes in enumerate(sizes_BR)
            for batches_BFD, size in zip(others, sizes)
        ]
    )
