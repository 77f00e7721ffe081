"""Parts of transformers' models that need care."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch


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
