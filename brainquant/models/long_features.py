"""Features of waveforms of any length, made piece by piece, as those of the whole.

What depends on all of the audio is measured first, in passes of its own: the level below which
features are cut off, means and variances. A stream has those of the audio so far.

Shape suffixes: B batch, L samples, T feature frames, F features, I quantiser's input dim.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from speechbrain.processing import features as speechbrain_features
from typing_extensions import override

from ..functional.pieces import Blocks, Moments, Piece, cut
from .features import LEAST_DEVIATION, pad_to_stacks, stack_frames

if TYPE_CHECKING:
    from .best_rq import BestRQEncoder
    from .wav2vec2 import Wav2Vec2Encoder


PIECE_SECONDS = 4.0  # of audio whose features are made at once


class FramesInPieces:
    """Makes the features of a long waveform: those of the whole, to float tolerance.

    Attributes
    ----------
    stack : int
        Feature frames of one encoder frame.
    is_measured : bool
        Whether the statistics are those of a whole recording, which ``measure`` has heard. If not,
        those of the audio so far are used, up to the end of the last piece.
    """

    stack: int = 1
    is_measured = False

    def measure(self, make_blocks: Callable[[], Blocks], *, inputs: bool = True) -> int:
        """Measures the statistics of a whole recording, and counts its samples.

        Arguments
        ---------
        make_blocks : callable
            Gives the blocks of the recording, from its beginning; it is called once per pass.
        inputs : bool
            Whether the quantiser's inputs will be asked for.
        """
        raise NotImplementedError

    def pieces(self, blocks: Blocks, seconds: float = PIECE_SECONDS) -> Iterator[torch.Tensor]:
        """Raw features in pieces of so many seconds, shape (frames, features); the last is shorter.

        The pieces do not depend on where the audio is cut into blocks.
        """
        raise NotImplementedError

    def ready(self, raw_TF: torch.Tensor) -> torch.Tensor:
        """What ``encode_features`` reads, shape (1, frames, features), in whole stacks."""
        raise NotImplementedError

    def inputs(self, raw_TF: torch.Tensor) -> torch.Tensor:
        """The quantiser's inputs, shape (encoder frames, input dim)."""
        raise NotImplementedError


class BestRQPieces(FramesInPieces):
    """Features of a ``BestRQEncoder``.

    SpeechBrain's features are cut off ``top_db`` below the loudest of the utterance. Here a copy of
    ``compute_features`` cuts them off by a level that is given.

    Raises
    ------
    ValueError
        If the normalisation is not SpeechBrain's or ours, so that nothing is known about it.
    """

    def __init__(self, encoder: BestRQEncoder) -> None:
        self.encoder = encoder
        self.stack = encoder.stack
        normalize = encoder.normalize
        if not isinstance(normalize, speechbrain_features.InputNormalization):
            raise ValueError(
                f"normalize: what {type(normalize).__name__} does to a part of long audio is not "
                f"known; set normalize: to brainquant.models.InputNormalization, or encode clips"
            )
        self.normalize = normalize
        self.has_statistics = normalize.norm_type != "global"  # of the audio itself
        self.moments = Moments()
        self.peak = -math.inf
        self.top_db = math.inf
        self.own = slice(0)  # frames of a piece that do not reach beyond it
        self.compute_features = copy.deepcopy(encoder.compute_features)
        fbanks = getattr(self.compute_features, "compute_fbanks", None)
        if fbanks is not None:
            self.top_db, fbanks.top_db = fbanks.top_db, math.inf
        self.margin = self._measure_margin()
        if fbanks is not None:
            fbanks.register_forward_hook(self._cut_off)

    def _measure_margin(self) -> int:
        """Frames that a part of the audio must have on both sides of those that it is read for."""
        hop, middle = self.encoder.hop, 100
        wavs_BL = torch.zeros(2, 2 * middle * hop, device=self._device)
        wavs_BL[1, middle * hop] = 1.0
        without_TF, with_TF = self.compute_features(wavs_BL)
        read_T = (without_TF != with_TF).any(-1).nonzero()[:, 0]
        return 1 + int((read_T - middle).abs().max())

    @property
    def _device(self) -> torch.device:
        return next(self.encoder.parameters()).device

    def _cut_off(self, module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if not self.is_measured:
            self.peak = max(self.peak, float(output[:, self.own].max()))
        return output.clamp(min=self.peak - self.top_db)

    def _span(self, first: int, last: int) -> tuple[int, int]:
        hop, margin = self.encoder.hop, self.margin
        return max(0, first - margin) * hop, (last - 1 + margin) * hop

    def _raw(self, piece: Piece) -> torch.Tensor:
        before = piece.first - piece.start // self.encoder.hop
        self.own = slice(before, before + piece.last - piece.first)
        return self.compute_features(piece.wav_L[None].to(self._device))[0, self.own]

    def _cut(self, blocks: Blocks, seconds: float) -> Iterator[Piece]:
        stacks = max(1, round(seconds * self.encoder.sample_rate / self.encoder.stride))
        return cut(blocks, stacks * self.stack, self._span, self.encoder.count_feature_frames)

    @override
    def measure(self, make_blocks: Callable[[], Blocks], *, inputs: bool = True) -> int:
        num_samples = 0

        def counted() -> Iterator[torch.Tensor]:
            nonlocal num_samples
            for block in make_blocks():
                num_samples += len(block)
                yield block

        for piece in self._cut(counted(), PIECE_SECONDS):
            self._raw(piece)  # for the peak
        self.is_measured = True
        if self.has_statistics:
            for raw_TF in self.pieces(make_blocks()):
                self.moments.add(raw_TF)
        return num_samples

    @override
    def pieces(self, blocks: Blocks, seconds: float = PIECE_SECONDS) -> Iterator[torch.Tensor]:
        for piece in self._cut(blocks, seconds):
            raw_TF = self._raw(piece)
            if not self.is_measured:
                self.moments.add(raw_TF)
            yield raw_TF

    @override
    def ready(self, raw_TF: torch.Tensor) -> torch.Tensor:
        frames_B = torch.tensor([len(raw_TF)], device=raw_TF.device)
        return pad_to_stacks(self._normalised(raw_TF[None]), frames_B, self.stack)

    def _normalised(self, raw_BTF: torch.Tensor) -> torch.Tensor:
        if not self.has_statistics:
            return self.normalize(raw_BTF, torch.ones(1, device=raw_BTF.device))
        mean_F, epsilon = self.moments.mean.float(), self.normalize.epsilon
        if not self.normalize.std_norm:
            return raw_BTF - mean_F
        return (raw_BTF - mean_F) / self.moments.variance.sqrt().float().clamp(min=epsilon)

    @override
    def inputs(self, raw_TF: torch.Tensor) -> torch.Tensor:
        return stack_frames(self.ready(raw_TF), self.stack)[0]


class Wav2Vec2Pieces(FramesInPieces):
    """Latents of a ``Wav2Vec2Encoder``, whose waveform is normalised as a whole."""

    def __init__(self, encoder: Wav2Vec2Encoder) -> None:
        self.encoder = encoder
        self.samples = Moments()
        self.latents = Moments()

    def _span(self, first: int, last: int) -> tuple[int, int]:
        field, stride = self.encoder.extractor.field_and_stride()
        return first * stride, (last - 1) * stride + field

    @override
    def measure(self, make_blocks: Callable[[], Blocks], *, inputs: bool = True) -> int:
        for block in make_blocks():
            self.samples.add(block)
        self.is_measured = True
        if inputs and self.encoder.normalise_targets:
            for latents_TF in self.pieces(make_blocks()):
                self.latents.add(latents_TF)
        return self.samples.count

    @override
    def pieces(self, blocks: Blocks, seconds: float = PIECE_SECONDS) -> Iterator[torch.Tensor]:
        encoder, extractor = self.encoder, self.encoder.extractor
        length = max(1, round(seconds * encoder.sample_rate / encoder.stride))
        device = next(encoder.parameters()).device
        for piece in cut(blocks, length, self._span, encoder.count_frames):
            if not self.is_measured:
                self.samples.add(piece.wav_L[max(0, self.samples.count - piece.start) :])
            wav_L = self.samples.normalise(piece.wav_L, 1e-5).to(device)
            latents_TF = extractor.norm(extractor.convolve(wav_L[None]))[0]
            if not self.is_measured and encoder.normalise_targets:
                self.latents.add(latents_TF)
            yield latents_TF

    @override
    def ready(self, raw_TF: torch.Tensor) -> torch.Tensor:
        return raw_TF[None]

    @override
    def inputs(self, raw_TF: torch.Tensor) -> torch.Tensor:
        if not self.encoder.normalise_targets:
            return raw_TF
        return self.latents.normalise(raw_TF.float(), LEAST_DEVIATION)
