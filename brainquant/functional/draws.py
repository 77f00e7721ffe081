"""Frames drawn alike on every rank, without waiting for the device.

Shape suffixes: N frames, K drawn frames, R ranks, X dims of a frame.
"""

import torch
import torch.nn.functional as F
from torch import distributed

HIGHEST_KEY = 2**63 - 1


def draw_frames(frames_NX, valid_N, most, seed, step):
    """Frames of all ranks, drawn without replacement, the same on every rank.

    The valid ones with the highest keys, which are hashes of frame, seed and step: whichever rank
    has a frame, and wherever, its key is the same.

    Arguments
    ---------
    frames_NX : torch.Tensor
        Frames of this rank, float32, shape (frames, ...).
    valid_N : torch.Tensor
        Which of them may be drawn.
    most : int
        How many are drawn, unless there are fewer.
    seed : int
        Of the hash.
    step : torch.Tensor
        Another one draws others.

    Returns
    -------
    frames_KX : torch.Tensor
        Shape (most, ...).
    drawn_K : torch.Tensor
        Which of them are frames; False for the rest, where there are fewer.

    Example
    -------
    >>> frames = torch.arange(5.0)[:, None]
    >>> drawn, _ = draw_frames(frames, frames[:, 0] < 4, 3, 0, torch.tensor(1))
    >>> drawn.unique().numel(), bool(drawn.max() < 4)
    (3, True)
    """
    bits_NX = frames_NX.flatten(1).contiguous().view(torch.int32).long()
    odd_X = scramble(torch.arange(bits_NX.shape[1], device=bits_NX.device) + seed) | 1
    keys_N = scramble((bits_NX * odd_X).sum(1) + scramble(step)) & HIGHEST_KEY
    keys_N = keys_N.masked_fill(~valid_N, -1)
    keys_K, which_K = F.pad(keys_N, (0, most), value=-1).topk(most)
    own_KX = torch.cat([frames_NX, frames_NX.new_zeros(most, *frames_NX.shape[1:])])[which_K]

    rank, ranks = place_among_ranks()
    keys_RK = keys_K.new_zeros(ranks, most)
    keys_RK[rank] = keys_K
    keys_K, place_K = sum_over_ranks(keys_RK).flatten().topk(most)
    others_KX = (place_K // most != rank).view(-1, *[1] * (frames_NX.dim() - 1))
    return sum_over_ranks(own_KX[place_K % most].masked_fill(others_KX, 0)), keys_K >= 0


def scramble(x):
    """A hash of int64 whose bits are all good, and which keeps different numbers different.

    The last steps of SplitMix64, see Steele et al., https://doi.org/10.1145/2660193.2660195.
    """
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        shifted = (x >> shift) & (2 ** (64 - shift) - 1)  # with zeros, not with the sign
        x = (x ^ shifted) * factor
    return x


def place_among_ranks():
    """The number of this process, and how many there are."""
    if distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def sum_over_ranks(tensor):
    """The tensor after it has been summed, in place, over all ranks."""
    if distributed.is_initialized():
        distributed.all_reduce(tensor)
    return tensor
