"""Parts of transformers' models that need care.

Shape suffixes: B batch, T frames, D dim, H heads, K dim of a head.
"""

from __future__ import annotations

import math
import types
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F


def field_and_stride(convolutions: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Samples that a frame reads, and those from one frame to the next, of kernels and strides.

    Example
    -------
    >>> field_and_stride([(10, 5), (3, 2)])
    (20, 10)
    """
    field = 1
    for kernel, stride in reversed(convolutions):
        field = (field - 1) * stride + kernel
    return field, math.prod(stride for _, stride in convolutions)


def inner_convolutions(model: Any) -> list[torch.nn.Conv1d]:
    """The convolutions of positions that do not read hidden states with zeros in the padding.

    transformers sets the padding to zeros once, before the first convolution. data2vec has five of
    them, and some HuBERT models have a batch norm before it; what these write into the padding
    would reach the last frames of a clip.
    """
    positions = model.encoder.pos_conv_embed
    found = [part for part in positions.modules() if isinstance(part, torch.nn.Conv1d)]
    return found if getattr(positions, "batch_norm", None) is not None else found[1:]


def freeze_adapter(model: Any) -> None:
    """Freezes what a fine-tuning has put after the layers, which a pretraining does not use."""
    for name in ("adapter", "intermediate_ffn"):
        if (part := getattr(model, name, None)) is not None:
            part.requires_grad_(False)


def attend_without_weights(model: Any) -> None:
    """Makes the attention of WavLM compute its outputs only.

    transformers asks torch for the weights of all heads, (frames, frames) each, which takes most of
    the memory of a step, and drops them. In evaluation the outputs are the same.
    """
    for part in model.modules():
        if hasattr(part, "torch_multi_head_self_attention"):
            part.torch_multi_head_self_attention = types.MethodType(_attend, part)


def _attend(
    attention: Any,
    hidden_BTD: torch.Tensor,
    valid_BT: torch.Tensor | None,
    bias_NTT: torch.Tensor,  # N batch x heads
) -> tuple[torch.Tensor, None]:
    """Outputs of an attention with a bias for each pair of frames."""
    projections = attention.q_proj, attention.k_proj, attention.v_proj
    query, key, value = (
        projection(hidden_BTD).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for projection in projections
    )
    bias_BHTT = bias_NTT.unflatten(0, (-1, attention.num_heads)).to(query.dtype)
    if valid_BT is not None:
        bias_BHTT = bias_BHTT.masked_fill(~valid_BT[:, None, None], -math.inf)
    dropout = attention.dropout if attention.training else 0.0
    attended_BHTK = F.scaled_dot_product_attention(query, key, value, bias_BHTT, dropout)
    return attention.out_proj(attended_BHTK.transpose(1, 2).flatten(2)), None
