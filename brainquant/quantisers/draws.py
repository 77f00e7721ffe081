"""Draws the same frames on every rank, without waiting for the device.

Shape suffixes: N frames, K drawn frames, R ranks, X dims of a frame.
"""

import torch
import torch.nn.functional as F

from ..functional.collectives import rank_and_size, sum_over_ranks

HIGHEST_KEY = 2**63 - 1


def frame_keys(
    frames_NX: torch.Tensor,
    valid_N: torch.Tensor,
    seed: int,
    step: torch.Tensor,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """A random key for each frame; the frames with the highest keys are drawn.

    A key depends neither on the rank that has the frame nor on the size of its batch.

    Arguments
    ---------
    frames_NX : torch.Tensor
        Frames of this rank, float32, shape (frames, ...).
    valid_N : torch.Tensor
        True for the frames that may be drawn.
    seed : int
        Seeds the hash.
    step : torch.Tensor
        Each step gives other keys.
    generator : torch.Generator or None
        Draws the keys. Without one they are hashes of frame, seed and step, in which every bit of
        a frame counts.

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


def with_highest_keys(
    keys_N: torch.Tensor, frames_NX: torch.Tensor, most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The frames with the highest keys.

    Arguments
    ---------
    keys_N : torch.Tensor
        From ``frame_keys``.
    frames_NX : torch.Tensor
        Shape (frames, ...).
    most : int
        Frames to draw.

    Returns
    -------
    keys_K, frames_KX : torch.Tensor
        ``most`` of each, the highest key first; keys of -1 if there are fewer frames.

    Example
    -------
    >>> with_highest_keys(torch.tensor([3, -1, 5]), torch.tensor([[7.0], [8.0], [9.0]]), 2)
    (tensor([5, 3]), tensor([[9.],
            [7.]]))
    """
    keys_K, which_K = F.pad(keys_N, (0, most), value=-1).topk(most)
    padded_NX = torch.cat([frames_NX, frames_NX.new_zeros(most, *frames_NX.shape[1:])])
    return keys_K, padded_NX[which_K]


def draw_over_ranks(
    keys_K: torch.Tensor, frames_KX: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The frames with the highest keys of all ranks.

    Arguments
    ---------
    keys_K, frames_KX : torch.Tensor
        From ``with_highest_keys``; the same number on every rank.

    Returns
    -------
    frames_KX : torch.Tensor
        The same on every rank.
    drawn_K : torch.Tensor
        True for frames; False for the rest, if there are fewer frames.

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
    keys_K, index_K = sum_over_ranks(keys_RK).flatten().topk(most)
    others_KX = (index_K // most != rank).view(-1, *[1] * (frames_KX.dim() - 1))
    return sum_over_ranks(frames_KX[index_K % most].masked_fill(others_KX, 0)), keys_K >= 0


def scramble(x: torch.Tensor) -> torch.Tensor:
    """A hash of int64: all bits are well mixed, and different numbers get different hashes.

    It is the last steps of SplitMix64, see Steele et al., https://doi.org/10.1145/2660193.2660195.
    """
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        shifted = (x >> shift) & (2 ** (64 - shift) - 1)  # fills in zeros, not the sign
        x = (x ^ shifted) * factor
    return x
