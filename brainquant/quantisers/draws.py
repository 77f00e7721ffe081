"""Frames drawn alike on every rank, without waiting for the device.

Shape suffixes: N frames, K drawn frames, R ranks, X dims of a frame.
"""

import torch
import torch.nn.functional as F

from ..functional.collectives import rank_and_size, sum_over_ranks

HIGHEST_KEY = 2**63 - 1


def frame_keys(frames_NX, valid_N, seed, step, generator=None):
    """A random number for each frame, which says in what order frames are drawn.

    It does not depend on the rank that has the frame, or on how many frames a batch has.

    Arguments
    ---------
    frames_NX : torch.Tensor
        Frames of this rank, float32, shape (frames, ...).
    valid_N : torch.Tensor
        Which of them may be drawn.
    seed : int
        Of the hash.
    step : torch.Tensor
        Another one gives other keys.
    generator : torch.Generator or None
        Draws the keys, where it belongs to the batch. Else they are hashes of frame, seed and
        step, in which the last bit of a frame counts as much as the first.

    Returns
    -------
    keys_N : torch.Tensor
        From 0 to 2 ** 63 - 1; -1 for a frame that may not be drawn.
    """
    if generator is not None:
        keys_N = torch.randint(
            HIGHEST_KEY, (len(frames_NX),), generator=generator, device=generator.device
        ).to(frames_NX.device)
    else:
        bits_NX = frames_NX.flatten(1).contiguous().view(torch.int32).long()
        odd_X = scramble(torch.arange(bits_NX.shape[1], device=bits_NX.device) + seed) | 1
        keys_N = scramble((bits_NX * odd_X).sum(1) + scramble(step)) & HIGHEST_KEY
    return keys_N.masked_fill(~valid_N, -1)


def with_highest_keys(keys_N, frames_NX, most):
    """The frames with the highest keys.

    Arguments
    ---------
    keys_N : torch.Tensor
        See ``frame_keys``.
    frames_NX : torch.Tensor
        Shape (frames, ...).
    most : int
        How many are drawn.

    Returns
    -------
    keys_K, frames_KX : torch.Tensor
        As many as ``most``, the highest first; keys of -1 where there are fewer frames.

    Example
    -------
    >>> with_highest_keys(torch.tensor([3, -1, 5]), torch.tensor([[7.0], [8.0], [9.0]]), 2)
    (tensor([5, 3]), tensor([[9.],
            [7.]]))
    """
    keys_K, which_K = F.pad(keys_N, (0, most), value=-1).topk(most)
    padded_NX = torch.cat([frames_NX, frames_NX.new_zeros(most, *frames_NX.shape[1:])])
    return keys_K, padded_NX[which_K]


def draw_over_ranks(keys_K, frames_KX):
    """Of the frames that each rank has drawn, those that all ranks have drawn together.

    Arguments
    ---------
    keys_K, frames_KX : torch.Tensor
        From ``with_highest_keys``, of the same size on every rank.

    Returns
    -------
    frames_KX : torch.Tensor
        The same on every rank.
    drawn_K : torch.Tensor
        Which of them are frames; False for the rest, where there are fewer.

    Example
    -------
    >>> keys, frames = torch.arange(5), torch.arange(5.0)[:, None]
    >>> draw_over_ranks(*with_highest_keys(keys, frames, 3))[0].flatten()
    tensor([4., 3., 2.])
    """
    most = len(keys_K)
    rank, ranks = rank_and_size()
    keys_RK = keys_K.new_zeros(ranks, most)
    keys_RK[rank] = keys_K
    keys_K, place_K = sum_over_ranks(keys_RK).flatten().topk(most)
    others_KX = (place_K // most != rank).view(-1, *[1] * (frames_KX.dim() - 1))
    return sum_over_ranks(frames_KX[place_K % most].masked_fill(others_KX, 0)), keys_K >= 0


def scramble(x):
    """A hash of int64 whose bits are all good, and which keeps different numbers different.

    The last steps of SplitMix64, see Steele et al., https://doi.org/10.1145/2660193.2660195.
    """
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        shifted = (x >> shift) & (2 ** (64 - shift) - 1)  # with zeros, not with the sign
        x = (x ^ shifted) * factor
    return x
