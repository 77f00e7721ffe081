"""Runs an encoder of dynamic chunk training over audio of any length, exactly.

Shape suffixes: T encoder frames, D dim.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from speechbrain import Stage
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
from speechbrain.lobes.models.transformer.TransformerASR import make_transformer_src_mask
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

from .layers import DynamicChunkEncoder


class ChunkRunner:
    """Runs a ``DynamicChunkEncoder`` over a few chunks at a time, as over all of them at once.

    Each layer keeps its inputs of the chunks on the left that its later outputs depend on.

    Arguments
    ---------
    encoder : DynamicChunkEncoder
        In evaluation mode.

    Example
    -------
    >>> from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
    >>> transformer = TransformerASR(
    ...     tgt_vocab=1, input_size=8, d_model=8, nhead=2, num_encoder_layers=2,
    ...     num_decoder_layers=0, d_ffn=8, encoder_module="conformer", causal=False,
    ...     attention_type="RelPosMHAXL", positional_encoding=None, normalize_before=True,
    ... )
    >>> encoder = DynamicChunkEncoder(transformer, lambda stage: DynChunkTrainConfig(4, 1)).eval()
    >>> run, x = ChunkRunner(encoder), torch.rand(1, 30, 8)
    >>> outputs = torch.cat([run(chunks)[-1] for chunks in x.split(8, dim=1)], dim=1)
    >>> torch.allclose(outputs, encoder(x), atol=1e-5)
    True
    """

    def __init__(self, encoder: Any) -> None:
        self.transformer = encoder.transformer
        chunks = chunks_of(encoder)
        assert chunks is not None and chunks.left_context_size is not None
        self.chunks, size, layers = chunks, chunks.chunk_size, self.transformer.encoder.layers
        # A layer attends to chunks on the left; before, its convolution reads what these attend to.
        self.left = [
            size * (chunks.left_context_size + math.ceil(layer.convolution_module.padding / size))
            for layer in layers
        ]
        self.held: list[torch.Tensor | None] = [None] * len(layers)

    def __call__(self, x_1TD: torch.Tensor, highest: int | None = None) -> list[torch.Tensor]:
        """Outputs of each layer up to the highest, or of all layers and of the norm after them.

        Arguments
        ---------
        x_1TD : torch.Tensor
            The next steps of the front end, in whole chunks except at the end of the audio.
        highest : int or None
            The highest layer, counted from 1, the same in each call.
        """
        x_1TD, outputs = self.transformer.custom_src_module(x_1TD), []
        for index, layer in enumerate(self.transformer.encoder.layers[:highest]):
            before = 0
            if (held_1TD := self.held[index]) is not None:
                before, x_1TD = held_1TD.shape[1], torch.cat([held_1TD, x_1TD], dim=1)
            y_1TD, _ = layer(
                x_1TD,
                src_mask=make_transformer_src_mask(x_1TD, dynchunktrain_config=self.chunks),
                pos_embs=self.transformer.positional_encoding(x_1TD),
                dynchunktrain_config=self.chunks,
            )
            self.held[index] = x_1TD[:, max(0, x_1TD.shape[1] - self.left[index]) :]
            x_1TD = y_1TD[:, before:]
            outputs.append(x_1TD)
        if highest is None:
            outputs.append(self.transformer.encoder.norm(x_1TD))
        return outputs


def chunks_of(transformer: Any) -> DynChunkTrainConfig | None:
    """The chunks that an encoder reads after training; None if it sees the whole audio."""
    return (
        transformer.sampler(Stage.VALID) if isinstance(transformer, DynamicChunkEncoder) else None
    )


def runs_exactly(transformer: Any) -> bool:
    """Whether ``ChunkRunner`` runs it: conformers with relative positions and a limited context."""
    chunks = chunks_of(transformer)
    return (
        chunks is not None
        and chunks.left_context_size is not None
        and isinstance(transformer.transformer.encoder, ConformerEncoder)
        and transformer.transformer.attention_type == "RelPosMHAXL"
    )
