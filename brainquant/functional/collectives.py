"""What ranks add up and hand to each other, where there are several.

Shape suffixes: B batches of a rank, R ranks, F frames of a batch, N frames of all, D dim.
"""

import torch
from torch import distributed


def rank_and_size():
    """The number of this process, and how many there are."""
    if distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def sum_over_ranks(tensor):
    """The tensor after it has been summed, in place, over all ranks."""
    if distributed.is_initialized():
        distributed.all_reduce(tensor)
    return tensor


def gather_batches(batches):
    """The frames of the batches of all ranks, in the order of one rank that has them all.

    Batch k of a run goes to rank k modulo the number of ranks, so the first batch of each rank
    comes first.

    Arguments
    ---------
    batches : list of torch.Tensor
        Those of this rank, each of shape (frames, dim); as many as other ranks have.

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
        return torch.cat(batches)
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
