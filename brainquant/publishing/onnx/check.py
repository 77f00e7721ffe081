"""Compares an exported model with the encoder, on shapes and sounds that are hard to get right.

Shape suffixes: B batch, L samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from ...inference import PretrainedEncoder

# Largest difference of a hidden state, and largest share of other codes: features differ by
# rounding, so a frame that lies between two codes may get the other.
TOLERANCE, MOST_UNEQUAL_CODES = 1e-3, 1e-3
BATCHES = ([1.0], [7.0, 2.3, 4.1], [2.0] * 8)  # seconds of the clips


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


@torch.no_grad()
def difference(pretrained: PretrainedEncoder, session: Any) -> Difference:
    """Compares each clip of a batch of ONNX Runtime with what the encoder gives it alone.

    Arguments
    ---------
    pretrained : PretrainedEncoder
        The encoder.
    session : onnxruntime.InferenceSession
        The exported model.

    Returns
    -------
    difference : Difference
    """
    worst, unequal, compared = 0.0, 0, 0
    for clips, hidden, frames, *codes in run_batches(pretrained, session):
        for index, wav_L in enumerate(clips):
            expected = pretrained(wav_L[None].to(pretrained.device))
            valid = int(expected.frames_B)
            if valid != frames[index]:
                return Difference(float("inf"), 1.0)
            off = (hidden[index, :valid] - expected.hidden[0].cpu()).abs().max()
            worst = max(worst, float(off)) if off == off else float("inf")
            if codes:
                alone = pretrained.codes(wav_L[None].to(pretrained.device)).codes_BTG[0].cpu()
                unequal += int((codes[0][index, : len(alone)] != alone).sum())
                compared += alone.numel()
    return Difference(worst, unequal / max(compared, 1))


def run_batches(pretrained: PretrainedEncoder, session: Any) -> Iterator[tuple[Any, ...]]:
    """The clips of each batch, and the outputs of ONNX Runtime for them as tensors."""
    for seconds in BATCHES:
        least = pretrained.min_samples / pretrained.sample_rate
        clips = make_clips(pretrained.sample_rate, [max(s, least) for s in seconds])
        wavs_BL = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=0.5)
        lengths_B = torch.tensor([len(wav_L) for wav_L in clips])
        outputs = session.run(None, {"wavs": wavs_BL.numpy(), "lengths": lengths_B.numpy()})
        yield clips, *map(torch.from_numpy, outputs)
