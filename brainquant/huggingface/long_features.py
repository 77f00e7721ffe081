"""What held models read of waveforms of any length, made piece by piece, as for the whole.

Shape suffixes: L samples, T frames, F features, C channels, O output channels, K taps of the
kernel, I features of an encoder frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from typing_extensions import override

from ..functional.pieces import Blocks, Moments, cut
from ..models.features import stack_frames
from ..models.first_convolution import GROUP, NormedConvolution
from ..models.latents import make_latents
from ..models.long_features import PIECE_SECONDS, FramesInPieces
from .convolution import convolutions_of
from .filterbanks import HOP, LEAST_VARIANCE, STACK, WINDOW

if TYPE_CHECKING:
    from .bert_encoder import W2vBertEncoder
    from .encoder import HuggingFaceEncoder


class LatentsInPieces(FramesInPieces):
    """Latents of a ``HuggingFaceEncoder``: waveform and group norm have statistics of the whole."""

    def __init__(self, encoder: HuggingFaceEncoder, eps: float) -> None:
        self.encoder = encoder
        self.eps = eps
        self.samples = Moments()
        self.first, *self.others = convolutions_of(encoder.model)
        self.has_group_norm = self.first.norm == GROUP
        self.outputs = Moments()  # of the first convolution, by channel

    @property
    def _device(self) -> torch.device:
        return self.first.weight_OCK.device

    def _span(self, first: int, last: int) -> tuple[int, int]:
        stride = self.encoder.stride
        return first * stride, (last - 1) * stride + self.encoder.min_samples

    def _span_of_outputs(self, first: int, last: int) -> tuple[int, int]:
        taps, stride = self.first.weight_OCK.shape[2], self.first.stride
        return first * stride, (last - 1) * stride + taps

    def _normalised(self, wav_L: torch.Tensor) -> torch.Tensor:
        if self.encoder.do_normalize:
            wav_L = self.samples.normalise(wav_L, self.eps)
        return wav_L.to(self._device)

    def _outputs(self, wav_L: torch.Tensor) -> torch.Tensor:
        """Outputs of the first convolution before its norm, shape (frames, channels)."""
        windows_TK = wav_L.unfold(0, self.first.weight_OCK.shape[2], self.first.stride)
        outputs_TO = windows_TK @ self.first.weight_OCK[:, 0].T
        return outputs_TO if self.first.bias_O is None else outputs_TO + self.first.bias_O

    def _first(self) -> NormedConvolution:
        """The first convolution, with the group norm of the whole as a part of its kernel."""
        if not self.has_group_norm:
            return self.first
        first, mean_O, variance_O = self.first, self.outputs.mean, self.outputs.variance
        assert first.scale_O is not None and first.shift_O is not None
        factor_O = first.scale_O * (variance_O + first.eps).rsqrt()
        bias_O = first.shift_O - mean_O * factor_O
        if first.bias_O is not None:
            bias_O = bias_O + first.bias_O * factor_O
        weight_OCK = first.weight_OCK * factor_O[:, None, None]
        return NormedConvolution(
            weight_OCK.to(first.weight_OCK), first.stride, bias_O.to(first.weight_OCK)
        )

    @override
    def measure(self, make_blocks: Callable[[], Blocks], *, inputs: bool = True) -> int:
        if inputs:
            self._check_targets()
        for block in make_blocks():
            self.samples.add(block)
        self.is_measured = True
        if self.has_group_norm:
            length = round(PIECE_SECONDS * self.encoder.sample_rate / self.first.stride)
            for piece in cut(make_blocks(), length, self._span_of_outputs, self.first.count_frames):
                self.outputs.add(self._outputs(self._normalised(piece.wav_L)))
        return self.samples.count

    @override
    def pieces(self, blocks: Blocks, seconds: float = PIECE_SECONDS) -> Iterator[torch.Tensor]:
        encoder = self.encoder
        length = max(1, round(seconds * encoder.sample_rate / encoder.stride))
        for piece in cut(blocks, length, self._span, encoder.count_frames):
            if not self.is_measured:
                self.samples.add(piece.wav_L[max(0, self.samples.count - piece.start) :])
            wav_L = self._normalised(piece.wav_L)
            if not self.is_measured and self.has_group_norm:
                seen = self.outputs.count - piece.start // self.first.stride
                self.outputs.add(self._outputs(wav_L)[max(0, seen) :])
            samples_B = torch.tensor([len(wav_L)], device=wav_L.device)
            yield make_latents(wav_L[None], samples_B, [self._first(), *self.others])[0]

    @override
    def ready(self, raw_TF: torch.Tensor) -> torch.Tensor:
        return raw_TF[None]

    @override
    def inputs(self, raw_TF: torch.Tensor) -> torch.Tensor:
        self._check_targets()
        return self.encoder.norm(raw_TF)

    def _check_targets(self) -> None:
        check_targets(self.encoder.targets)


class FilterbanksInPieces(FramesInPieces):
    """What a ``W2vBertEncoder`` reads: filterbanks with mean and variance of the whole."""

    def __init__(self, encoder: W2vBertEncoder) -> None:
        self.encoder = encoder
        self.features = Moments()

    def _span(self, first: int, last: int) -> tuple[int, int]:
        return first * HOP, (last - 1) * HOP + WINDOW

    def _pieces(self, blocks: Blocks, seconds: float) -> Iterator[torch.Tensor]:
        """Features of pieces, an even number of frames of each but the last."""
        encoder, filterbanks = self.encoder, self.encoder.filterbanks
        device = filterbanks.window_W.device
        length = STACK * max(1, round(seconds * encoder.sample_rate / encoder.stride))
        for piece in cut(blocks, length, self._span, filterbanks.count_frames):
            feats_TF = filterbanks.log_mels(piece.wav_L[None].to(device))[0]
            yield feats_TF[: piece.last - piece.first]

    @override
    def measure(self, make_blocks: Callable[[], Blocks], *, inputs: bool = True) -> int:
        if inputs:
            check_targets(self.encoder.targets)
        num_samples = 0

        def counted() -> Iterator[torch.Tensor]:
            nonlocal num_samples
            for block in make_blocks():
                num_samples += len(block)
                yield block

        for feats_TF in self._pieces(counted(), PIECE_SECONDS):
            self.features.add(feats_TF)
        self.is_measured = True
        return num_samples

    @override
    def pieces(self, blocks: Blocks, seconds: float = PIECE_SECONDS) -> Iterator[torch.Tensor]:
        for feats_TF in self._pieces(blocks, seconds):
            if not self.is_measured:
                self.features.add(feats_TF)
            whole = len(feats_TF) // STACK * STACK
            if whole:
                yield stack_frames(feats_TF[None, :whole], STACK)[0]

    @override
    def ready(self, raw_TF: torch.Tensor) -> torch.Tensor:
        features = self.features
        variance_F = features.squares / max(1, features.count - 1)
        mean_I, deviation_I = (
            value_F.to(raw_TF).repeat(STACK)
            for value_F in (features.mean, (variance_F + LEAST_VARIANCE).sqrt())
        )
        return ((raw_TF - mean_I) / deviation_I)[None]

    @override
    def inputs(self, raw_TF: torch.Tensor) -> torch.Tensor:
        check_targets(self.encoder.targets)
        return self.ready(raw_TF)[0]


def check_targets(targets: torch.nn.Module | None) -> None:
    """Raises a ValueError if the quantiser's inputs are made by another module.

    Example
    -------
    >>> check_targets(None)
    >>> check_targets(torch.nn.Identity())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: the quantiser's inputs are those of Identity, which are not made piece by piece; ...
    """
    if targets is not None:
        raise ValueError(
            f"the quantiser's inputs are those of {type(targets).__name__}, which are not made "
            f"piece by piece; take codes and layer 0 of clips of up to 30 s, or other layers"
        )
