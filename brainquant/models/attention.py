"""Attention with dropout on a CPU, without (frames, frames) for the backward.

Shape suffixes: B batch, H heads, h some of the heads, T frames, D dim of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from .dropout import LEVELS, draw_kept, make_generator

# So many scores are computed at once: they stay in the cache.
SCORES = 2**20


def attend(
    query_BHTD: torch.Tensor,
    key_BHTD: torch.Tensor,
    value_BHTD: torch.Tensor,
    mask_B1TT: torch.Tensor | None = None,
    *,
    scale: float,
    dropout: float = 0.0,
    gate_BHT: torch.Tensor | None = None,
    bias_HTT: torch.Tensor | None = None,
) -> torch.Tensor:
    """``scaled_dot_product_attention`` on a CPU, with dropout.

    torch 2.14 has no kernel for dropout on a CPU: it keeps several tensors of all pairs of frames.
    Here the backward computes the weights again, those of a few heads at a time. 16 bits decide on
    each weight, as in ``brainquant.models.dropout``.

    Arguments
    ---------
    query_BHTD, key_BHTD, value_BHTD : torch.Tensor
        Shape (batch, heads, frames, dim of a head).
    mask_B1TT : torch.Tensor or None
        BoolTensor, True for each pair of a frame and one that it attends to.
    scale : float
        Factor of the scores.
    dropout : float
        Share of the weights that becomes zero, from 0 to below 1.
    gate_BHT, bias_HTT : torch.Tensor or None
        A bias of each pair of frames, and its factor for each frame that attends: their product is
        added to the scores, as in WavLM.

    Returns
    -------
    output_BHTD : torch.Tensor

    Example
    -------
    >>> x = torch.rand(2, 3, 5, 4)
    >>> expected = torch.nn.functional.scaled_dot_product_attention(x, x, x, scale=0.5)
    >>> torch.allclose(attend(x, x, x, scale=0.5), expected, atol=1e-6)
    True
    """
    tensors = query_BHTD, key_BHTD, value_BHTD, mask_B1TT, gate_BHT, bias_HTT
    return Attention.apply(*tensors, scale, round(dropout * LEVELS))


class Attention(torch.autograd.Function):
    """``attend``; it keeps its inputs, and the seed of the dropout."""

    @staticmethod
    def forward(ctx, query, key, value, mask, gate, bias, scale, dropped_levels):
        """Attends."""
        seed = int(torch.randint(2**62, ())) if dropped_levels else 0
        ctx.save_for_backward(query, key, value, mask, gate, bias)
        ctx.constants = constants = scale, dropped_levels, seed
        (B, H, T, _), D = query.shape, value.shape[3]
        output_BHTD = query.new_empty(B, T, H, D).transpose(1, 2)
        factor = LEVELS / (LEVELS - dropped_levels)
        pieces = weights_of_pieces(query, key, mask, gate, bias, *constants)
        for piece, weights_hTT, kept_hTT in pieces:
            if kept_hTT is not None:
                weights_hTT *= kept_hTT
            output_BHTD[piece] = multiply(weights_hTT, value[piece], factor)
        return output_BHTD

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_BHTD):
        """Computes the weights again."""
        query, key, value, mask, gate, bias = ctx.saved_tensors
        scale, dropped_levels, _ = ctx.constants
        factor = LEVELS / (LEVELS - dropped_levels)
        grad_query, grad_key, grad_value = map(torch.empty_like, (query, key, value))
        grads_of_bias: list[Any] = [
            None if x is None else torch.zeros_like(x) for x in (gate, bias)
        ]
        pieces = weights_of_pieces(query, key, mask, gate, bias, *ctx.constants)
        for piece, weights_hTT, kept_hTT in pieces:
            grad_hTT = multiply(grad_BHTD[piece], value[piece].mT, factor)
            used_hTT = weights_hTT
            if kept_hTT is not None:
                used_hTT = weights_hTT * kept_hTT
                grad_hTT *= kept_hTT
            grad_value[piece] = multiply(used_hTT.mT, grad_BHTD[piece], factor)
            dtype = weights_hTT.dtype
            grad_hTT = torch.ops.aten._softmax_backward_data(grad_hTT, weights_hTT, -1, dtype)
            grad_query[piece] = multiply(grad_hTT, key[piece], scale)
            grad_key[piece] = multiply(grad_hTT.mT, query[piece], scale)
            if gate is not None and bias is not None:
                (grad_gate, grad_bias), heads = grads_of_bias, piece[1]
                grad_gate[piece] = (grad_hTT * bias[heads]).sum(-1)
                grad_bias[heads].addcmul_(grad_hTT, gate[piece][..., None])
        return grad_query, grad_key, grad_value, None, *grads_of_bias, None, None


def weights_of_pieces(
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    gate: torch.Tensor | None,
    bias: torch.Tensor | None,
    scale: float,
    dropped_levels: int,
    seed: int,
) -> Iterator[tuple[tuple[int, slice], torch.Tensor, torch.Tensor | None]]:
    """For some heads of an utterance their index, their weights, and which of them are kept."""
    generator = make_generator(seed)
    B, H, T, _ = query.shape
    heads = max(1, min(H, SCORES // (T * key.shape[2])))
    for b in range(B):
        for first in range(0, H, heads):
            piece = b, slice(first, min(first + heads, H))
            scores_hTT = multiply(query[piece], key[piece].mT, scale)
            if gate is not None and bias is not None:
                scores_hTT.addcmul_(gate[piece][..., None], bias[piece[1]])
            if mask is not None:
                scores_hTT.masked_fill_(~mask[b], -torch.inf)
            kept_hTT = None
            if dropped_levels:
                kept_hTT = draw_kept(generator, scores_hTT.shape, dropped_levels)
            yield piece, scores_hTT.softmax(-1), kept_hTT


def multiply(left: torch.Tensor, right: torch.Tensor, factor: float) -> torch.Tensor:
    """The products of matrices, times a factor."""
    shape = len(left), left.shape[1], right.shape[2]
    return torch.baddbmm(left.new_empty(shape), left, right, beta=0, alpha=factor)
