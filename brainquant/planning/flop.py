"""The arithmetic of a step: products and convolutions, counted on real audio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from speechbrain import Stage
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..brains.ctc import CTCBrain
from ..data.batches import LeftOutClip
from ..training.quality import as_in_validation

FLOP_SECONDS = 8.0  # of speech on which the arithmetic is counted, at least one clip
TRIED_BATCHES = 20  # until one has a clip that can be read


def product_in_place(_: Any, a: Sequence[int], b: Sequence[int], **options: Any) -> int:
    """FLOP of a product that is added to a matrix, or of a batch of them, from the shapes."""
    return 2 * math.prod(a) * b[-1]


def backward_of_convolution(
    grad_out: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: Sequence[bool],
    out_shape: Any = None,
) -> int:
    """FLOP of the gradients of input and weight, from the shapes.

    (torch counts a depthwise convolution as if each channel read all channels.)
    """
    places = (x if transposed else grad_out)[2:]
    forward = 2 * x[0] * math.prod(places) * math.prod(weight)
    return forward * (output_mask[0] + output_mask[1])


# What torch's table lacks (2.14), or counts wrong.
OTHER_OPERATORS = {
    torch.ops.aten.addmm_: product_in_place,
    torch.ops.aten.baddbmm_: product_in_place,
    torch.ops.aten.convolution_backward: backward_of_convolution,
}


def count_flop(brain: Any, train_loader: Any) -> float | None:
    """FLOP of a forward and backward pass for a second of speech; None if no clip can be read.

    A multiplication and an addition are two. Counts the products and convolutions of all modules
    in evaluation mode, on the first clips of a batch of about the mean length.
    """
    batch = _short_batch(train_loader)
    if batch is None:
        return None
    stage = Stage.VALID  # draws its masks without a place in an epoch
    # The kernels of attention have no number of their own on a CPU; its products have.
    with as_in_validation(brain.modules), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False, custom_mapping=OTHER_OPERATORS) as counter:
            predictions = brain.compute_forward(batch, stage)
            if isinstance(brain, CTCBrain):  # it knows no characters yet
                predictions[0].mean().backward()
            else:
                brain.compute_objectives(predictions, batch, stage).backward()
    brain.modules.zero_grad(set_to_none=True)
    brain.tally.start(stage)  # forgets what it has observed
    brain.tally.start(Stage.TRAIN)
    return counter.get_total_flops() / float(sum(batch.duration))


def _short_batch(train_loader: Any) -> Any:
    """A real batch of a few seconds, of clips that are about as long as most speech."""
    dataset, sampler = train_loader.dataset, train_loader.batch_sampler
    seconds = [float(dataset.data[clip]["duration"]) for clip in dataset.data_ids]
    middle = sum(s * s for s in seconds) / sum(seconds)  # the mean clip of a second of speech
    batches = [batch for batch in sampler if batch]
    batches.sort(key=lambda batch: abs(sum(seconds[n] for n in batch) / len(batch) - middle))
    for batch in batches[:TRIED_BATCHES]:
        clips, held = [], 0.0
        for index in batch:
            if held >= FLOP_SECONDS:
                break
            clip = dataset[index]
            if not isinstance(clip, LeftOutClip):
                clips.append(clip)
                held += clip["duration"]
        if clips:
            return train_loader.collate_fn(clips)
    return None
