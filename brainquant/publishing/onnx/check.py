"""Compares an exported model with the encoder, on shapes and sounds that are hard to get right.

Shape suffixes: B batch, L samples.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from ...inference import PretrainedEncoder

# Largest difference of a hidden state, and largest share of other codes: features differ by
# rounding, so a frame that lies between two codes may get the other.
TOLERANCE, MOST_UNEQUAL_CODES = 1e-3, 1e-3
BATCHES = ([1.0], [7.0, 2.3, 4.1], [2.0] * 8)  # seconds of the clips


class Batch(NamedTuple):
    """Clips, and the inputs of the model for them; noise of another kind follows their ends."""

    clips: list[torch.Tensor]
    inputs: dict[str, np.ndarray]


class Difference(NamedTuple):
    """How far an exported model is from the encoder."""

    hidden: float  # largest difference of a hidden state
    codes: float  # share of the codes that differ; 0 without codes


def make_clips(sample_rate: int, seconds: list[float]) -> list[torch.Tensor]:
    """Tones with noise that swell and fade, some of them quiet, with silence in the middle."""
    generator = torch.Generator().manual_seed(len(seconds))
    clips = []
    for index, length in enumerate(seconds):
        time_L = torch.arange(int(length * sample_rate)) / sample_rate
        tone_L = torch.sin(2 * torch.pi * (120 + 90 * index) * time_L * (1 + 0.2 * time_L))
        noise_L = torch.randn(len(time_L), generator=generator)
        wav_L = (tone_L + 0.1 * noise_L) * torch.sin(3 * time_L).abs() * 0.3 / (1 + 4 * index)
        third = len(wav_L) // 3
        wav_L[third : third + sample_rate // 4] = 0.0
        clips.append(wav_L)
    return clips


def make_batches(pretrained: PretrainedEncoder) -> list[Batch]:
    """Batches of one to eight clips."""
    rate, batches = pretrained.sample_rate, []
    for seconds in BATCHES:
        clips = make_clips(rate, [max(s, pretrained.min_samples / rate) for s in seconds])
        wavs_BL = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=0.5)
        lengths_B = np.array([len(wav_L) for wav_L in clips])
        batches.append(Batch(clips, {"wavs": wavs_BL.numpy(), "lengths": lengths_B}))
    return batches


@torch.no_grad()
def difference(
    pretrained: PretrainedEncoder, batches: list[Batch], outputs: list[Any]
) -> Difference:
    """Compares each clip of the batches with what the encoder gives it alone.

    Arguments
    ---------
    pretrained : PretrainedEncoder
        The encoder.
    batches : list of Batch
        From ``make_batches``.
    outputs : list of list of np.ndarray
        For each batch, the outputs of the exported model.

    Returns
    -------
    difference : Difference
        Infinite if a clip has another number of frames, or if a hidden state is not finite.
    """
    worst, unequal, compared = 0.0, 0, 0
    for batch, (hidden, frames, *codes) in zip(batches, outputs):
        for row, wav_L in enumerate(batch.clips):
            wav_1L = wav_L[None].to(pretrained.device)
            expected, valid = pretrained(wav_1L)
            if valid != frames[row]:
                return Difference(math.inf, 1.0)
            off = np.abs(hidden[row, : int(valid)] - expected[0].cpu().numpy()).max()
            worst = max(worst, float(off)) if np.isfinite(off) else math.inf
            if codes:
                alone = pretrained.codes(wav_1L).codes_BTG[0].cpu().numpy()
                unequal += int((codes[0][row, : len(alone)] != alone).sum())
                compared += alone.size
    return Difference(worst, unequal / max(compared, 1))
