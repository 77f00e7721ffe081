"""What gives the hidden states of windows: the Transformer, or its chunks one after the other.

Shape suffixes: T encoder frames, D dim, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from ..models import BestRQEncoder, SpeechEncoder
from ..models.chunk_runner import ChunkRunner, chunks_of, runs_exactly
from ..models.features import stacks_behind
from ..models.long_features import FramesInPieces
from .windows import Plan, Window, cut_windows

CHUNKS_SECONDS = 16.0  # of chunks that an encoder of dynamic chunk training reads at once


def make_plan(
    encoder: SpeechEncoder, context_seconds: float | None, chunks_seconds: float = CHUNKS_SECONDS
) -> Plan:
    """The windows of an encoder: twice the context, and the context on both sides."""
    seconds = encoder.context_seconds if context_seconds is None else context_seconds
    if not 0 < seconds < math.inf:
        raise ValueError(
            f"context_seconds must be a number of seconds above 0, got {context_seconds!r}; leave "
            f"it out for {encoder.context_seconds:g} s"
        )
    rate, chunks = encoder.sample_rate / encoder.stride, None
    if hasattr(encoder, "transformer"):  # a held model has no chunks
        chunks = chunks_of(encoder.transformer)
    if isinstance(encoder, BestRQEncoder) and runs_exactly(encoder.transformer):
        assert chunks is not None
        step = max(1, round(chunks_seconds * rate / chunks.chunk_size)) * chunks.chunk_size
        behind = stacks_behind(encoder.front_end, encoder.num_features, encoder.stack)
        return Plan(step, behind, encoder.stacks_ahead)
    unit = 1 if chunks is None else chunks.chunk_size  # windows begin where chunks begin
    context = max(1, round(seconds * rate / unit)) * unit
    return Plan(2 * context, context, context)


@torch.no_grad()
def encode_windows(
    encoder: SpeechEncoder,
    front: FramesInPieces,
    pieces: Iterator[torch.Tensor],
    plan: Plan,
    layers: Sequence[int] | None,
) -> Iterator[tuple[list[torch.Tensor], int]]:
    """Hidden states of each window, and the number of its first frame."""
    above = None if layers is None else [layer for layer in layers if layer]
    run = _make_runner(encoder, front, above)
    for window in cut_windows(pieces, front.stack, plan):
        outputs = iter(run(window))
        tensors = [
            front.inputs(window.feats_TF)[window.kept] if layer == 0 else next(outputs)
            for layer in ([None] if layers is None else layers)
        ]
        yield [tensor.cpu() for tensor in tensors], window.start


def _make_runner(
    encoder: SpeechEncoder, front: FramesInPieces, layers: Sequence[int] | None
) -> Callable[[Window], list[torch.Tensor]]:
    """A function that gives the hidden states of the frames that are kept of a window."""
    if layers is not None and not layers:
        return lambda window: []
    if isinstance(encoder, BestRQEncoder) and runs_exactly(encoder.transformer):
        run = ChunkRunner(encoder.transformer)

        def run_chunks(window: Window) -> list[torch.Tensor]:
            steps_1TD = encoder.steps(front.ready(window.feats_TF))[:, window.kept]
            outputs = run(steps_1TD, max(layers) if layers else None)
            return [outputs[layer - 1][0] for layer in layers or [0]]

        return run_chunks

    def run_window(window: Window) -> list[torch.Tensor]:
        feats_1TF = front.ready(window.feats_TF)
        inputs = feats_1TF, torch.tensor([feats_1TF.shape[1]])
        if layers is None:
            return [encoder.encode_features(*inputs)[0, window.kept]]
        outputs = encoder.outputs_of(layers, encoder.encode_features, *inputs)
        return [output[0, window.kept] for output in outputs]

    return run_window
