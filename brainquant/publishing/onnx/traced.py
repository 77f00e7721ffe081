"""The module that is exported: a trained encoder with its quantiser, waveforms in.

Shape suffixes: B batch, L samples, T frames, D dim, G codebooks, I quantiser's input dim, C code
dim, V codes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...inference import PretrainedEncoder
from ...masking import lengths_to_mask
from ...models import BestRQEncoder, SpeechEncoder
from ...quantisers import (
    GumbelVectorQuantizer,
    KMeansQuantizer,
    Quantiser,
    RandomProjectionQuantizer,
    VectorQuantizer,
)
from .layers import make_exportable


class TracedEncoder(torch.nn.Module):
    """``PretrainedEncoder`` in operators that ONNX has, on the CPU and in float32.

    Arguments
    ---------
    pretrained : PretrainedEncoder
        Is copied, so it does not change.

    Example
    -------
    >>> from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
    >>> from brainquant.models import MaskingEncoder, Wav2Vec2Encoder, Wav2Vec2Extractor
    >>> conformer = ConformerEncoder(1, 16, 32, 2, attention_type="regularMHA")
    >>> modules = Wav2Vec2Extractor(out_channels=[8] * 7), MaskingEncoder(8, 16, conformer)
    >>> pretrained = PretrainedEncoder(Wav2Vec2Encoder(*modules))
    >>> wavs, lengths = torch.rand(2, 16000), torch.tensor([16000, 8000])
    >>> hidden, frames = TracedEncoder(pretrained)(wavs, lengths)
    >>> bool((hidden - pretrained(wavs, lengths).hidden).abs().max() < 1e-4)
    True
    """

    def __init__(self, pretrained: PretrainedEncoder) -> None:
        super().__init__()
        self.encoder: SpeechEncoder = copy.deepcopy(pretrained.encoder).cpu().float()
        make_exportable(self.encoder)
        self.search = code_search(pretrained.quantiser)

    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Hidden states, valid frames and, if the search for codes is exported, codes.

        Zeros and -1 follow the end of each clip, as in ``PretrainedEncoder``.
        """
        wavs = wavs.masked_fill(~lengths_to_mask(lengths, wavs.shape[1]), 0.0)
        hidden_BTD, frames_B, inputs_BTI, _ = self.encoder(wavs, lengths)
        T = hidden_BTD.shape[1]
        hidden_BTD = hidden_BTD.masked_fill(~lengths_to_mask(frames_B, T)[..., None], 0.0)
        if self.search is None:
            return hidden_BTD, frames_B
        filled_B = frames_B
        if isinstance(self.encoder, BestRQEncoder):  # a code needs a whole stack of features
            filled_B = self.encoder.count_feature_frames(lengths) // self.encoder.stack
        after_BT1 = ~lengths_to_mask(filled_B, T)[..., None]
        return hidden_BTD, frames_B, self.search(inputs_BTI).masked_fill(after_BT1, -1)


class CodeSearch(torch.nn.Module):
    """The code with the highest inner product plus offset, in each codebook, in float64.

    Arguments
    ---------
    hidden : torch.nn.Module
        Applied to the frames first, in float32.
    projections : sequence of tuple
        For each codebook a matrix (input dim, code dim) and a shift (code dim), or None: the
        frames are projected before they are compared.
    codebooks : sequence of torch.Tensor
        Codes, shape (codes, code dim).
    offsets : sequence of torch.Tensor
        Added to the products, shape (codes,).

    Example
    -------
    >>> search = CodeSearch(torch.nn.Identity(), [None], [torch.eye(2)], [torch.tensor([0.0, 1.0])])
    >>> search(torch.tensor([[[3.0, 1.0], [1.0, 1.0], [torch.nan, 1.0]]])).flatten()
    tensor([ 0,  1, -1])
    """

    def __init__(
        self,
        hidden: torch.nn.Module,
        projections: Sequence[tuple[Tensor, Tensor] | None],
        codebooks: Sequence[Tensor],
        offsets: Sequence[Tensor],
    ) -> None:
        super().__init__()
        self.hidden = copy.deepcopy(hidden).cpu().float()
        self.tables: list[tuple[str, ...]] = []
        for g, (projection, *table) in enumerate(zip(projections, codebooks, offsets)):
            tensors = [*(projection or ()), *table]
            names = tuple(f"table_{g}_{n}" for n in range(len(tensors)))
            for name, tensor in zip(names, tensors):
                self.register_buffer(name, tensor.detach().cpu().double())
            self.tables.append(names)

    def forward(self, x_BTI: Tensor) -> Tensor:
        """Codes, shape (batch, frames, codebooks); -1 for a frame that is not finite."""
        finite_BT1 = x_BTI.isfinite().all(-1, keepdim=True)
        x_BTI = self.hidden(x_BTI).double()
        codes = []
        for names in self.tables:
            *projection, codebook_VC, offset_V = map(self.get_buffer, names)
            x_BTC = x_BTI
            if projection:
                x_BTC = x_BTI @ projection[0] + projection[1]
            codes.append((x_BTC @ codebook_VC.T + offset_V).argmax(-1))
        return torch.stack(codes, -1).masked_fill(~finite_BT1, -1)


def code_search(quantiser: Quantiser | None) -> CodeSearch | None:
    """The search of a quantiser, or None if it has none that can be exported.

    Example
    -------
    >>> quantiser = RandomProjectionQuantizer(16, 4, 32, num_codebooks=2, seed=0)
    >>> frames = torch.randn(1, 50, 16)
    >>> search = code_search(quantiser)
    >>> bool((search(frames) == quantiser.encode(frames)).all())
    True
    """
    if isinstance(quantiser, RandomProjectionQuantizer):
        shift_C = torch.zeros(quantiser.cb_dim) if quantiser.shift is None else quantiser.shift
        P_GIC = quantiser.P.view(-1, quantiser.input_dim, quantiser.cb_dim)
        CB_GVC = quantiser.CB.view(-1, quantiser.cb_vocab, quantiser.cb_dim)
        offsets = [torch.zeros(quantiser.cb_vocab)] * len(P_GIC)
        projections = [(P_IC, shift_C) for P_IC in P_GIC]
        return CodeSearch(torch.nn.Identity(), projections, list(CB_GVC), offsets)
    if isinstance(quantiser, KMeansQuantizer):
        codebooks = [quantiser.centroids]
        return CodeSearch(torch.nn.Identity(), [None], codebooks, distances(codebooks))
    if isinstance(quantiser, VectorQuantizer):
        weights = quantiser.proj.weight.T.chunk(quantiser.num_codebooks, 1)
        projections = list(zip(weights, quantiser.proj.bias.chunk(quantiser.num_codebooks)))
        codebooks = list(quantiser.codebook)
        return CodeSearch(torch.nn.Identity(), projections, codebooks, distances(codebooks))
    if isinstance(quantiser, GumbelVectorQuantizer):
        hidden: torch.nn.Module = torch.nn.Identity()
        scores: Any = quantiser.weight_proj
        if isinstance(scores, torch.nn.Sequential):
            hidden, scores = scores[:-1], scores[-1]
        weights, offsets = (
            list(tensor.chunk(quantiser.groups)) for tensor in (scores.weight, scores.bias)
        )
        return CodeSearch(hidden, [None] * quantiser.groups, weights, offsets)
    return None


def distances(codebooks: list[Tensor]) -> list[Tensor]:
    """Offsets with which the highest product is the lowest Euclidean distance."""
    return [codebook_VC.double().square().sum(1) / -2 for codebook_VC in codebooks]
