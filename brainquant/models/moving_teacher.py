"""A slow copy of an encoder, whose layers are the targets of self-distillation.

Shape suffixes: B batch, T feature frames, F features, S encoder frames, I inputs of the quantiser,
D dim.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from typing_extensions import Self, override

from .speech_encoder import SpeechEncoder


class MovingTeacher(torch.nn.Module):
    """An exponential moving average of an encoder, from its features upwards.

    It reads the features that the encoder has made, as the teachers of data2vec
    (https://arxiv.org/abs/2202.03555) and DinoSR (https://arxiv.org/abs/2305.10005) do, so it has
    no extractor and no normalisation of its own. It is never trained: there is no gradient, no
    dropout, and no mask.

    Arguments
    ---------
    encoder : SpeechEncoder
        Is copied; it has ``feature_parts``.

    Raises
    ------
    ValueError
        If the encoder cannot encode features that are made already.

    Example
    -------
    >>> from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
    >>> from brainquant.models import MaskingEncoder, Wav2Vec2Encoder, Wav2Vec2Extractor
    >>> conformer = ConformerEncoder(2, 16, 32, 2, attention_type="regularMHA")
    >>> encoder = Wav2Vec2Encoder(
    ...     Wav2Vec2Extractor(out_channels=[8] * 7), MaskingEncoder(8, 16, conformer)
    ... )
    >>> teacher, lengths = MovingTeacher(encoder), torch.tensor([16000])
    >>> encoded = encoder(torch.rand(1, 16000), lengths)
    >>> [x.shape for x in teacher.layer_outputs(encoded.inputs_BTI, encoded.frames_B, [1, 2])]
    [torch.Size([1, 48, 16]), torch.Size([1, 48, 16])]
    """

    def __init__(self, encoder: SpeechEncoder) -> None:
        super().__init__()
        if not encoder.feature_parts or getattr(encoder, "normalise_targets", False):
            raise ValueError(
                f"encoder: a teacher needs the features that {type(encoder).__name__} encodes as "
                f"they are; use a BestRQEncoder, or a Wav2Vec2Encoder with normalise_targets: False"
            )
        without = {id(encoder.get_submodule(name)): None for name in encoder.feature_parts}
        self.encoder = copy.deepcopy(encoder, without)
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def layer_outputs(
        self, inputs_BSI: torch.Tensor, frames_B: torch.Tensor, layers: Sequence[int]
    ) -> list[torch.Tensor]:
        """Outputs of layers for unmasked audio, shape (batch, encoder frames, dim) each.

        Arguments
        ---------
        inputs_BSI : torch.Tensor
            The ``inputs_BTI`` that a forward of the encoder gives.
        frames_B : torch.Tensor
            Feature frames of each utterance.
        layers : sequence of int
            Layers, counted from 1.
        """
        feats_BTF = inputs_BSI.detach().unflatten(2, (self.encoder.stack, -1)).flatten(1, 2)
        features = self.encoder.encode_features, feats_BTF, frames_B
        return self.encoder.outputs_of(layers, *features)

    @torch.no_grad()
    def follow(self, encoder: SpeechEncoder, share: float | torch.Tensor = 1.0) -> None:
        """Moves the parameters by a share of the way to those of the encoder; copies its buffers.

        Arguments
        ---------
        encoder : SpeechEncoder
            The encoder of which this is a copy.
        share : float or torch.Tensor
            From 0 to 1. The host does not read a tensor.
        """
        theirs = dict(encoder.named_parameters())
        for name, parameter in self.encoder.named_parameters():
            weight = torch.as_tensor(share, dtype=parameter.dtype, device=parameter.device)
            parameter.lerp_(theirs[name].detach(), weight)
        theirs = dict(encoder.named_buffers())
        for name, buffer in self.encoder.named_buffers():
            buffer.copy_(theirs[name])

    @override
    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode."""
        return super().train(False)
