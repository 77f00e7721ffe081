"""Waveforms of any length, block by block: of files, tensors and streams.

Shape suffixes: L samples.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from speechbrain.utils.logger import get_logger

from ..data.audio import AudioReader
from ..data.audio.headers import read_header
from ..functional.pieces import Blocks

logger = get_logger(__name__)

BLOCK = 2**18  # samples
Audio = torch.Tensor | str | os.PathLike  # a waveform, or the path of a file

_said: set[str] = set()


def blocks_of(audio: Audio, sample_rate: int) -> Callable[[], Blocks]:
    """A function that gives the blocks of a waveform or of a file, from its beginning."""
    if isinstance(audio, torch.Tensor):
        return functools.partial(torch.split, as_waveform(audio), BLOCK)
    reader = AudioReader(sample_rate, resample=True, mix_down="mean")

    def make_blocks() -> Blocks:
        return reader.blocks(audio)

    _say_what_changes(audio, sample_rate)
    return make_blocks


def _say_what_changes(path: str | os.PathLike, sample_rate: int) -> None:
    try:
        header = read_header(path)
    except ValueError:
        return  # the reader gives the reason
    if header.sample_rate != sample_rate:
        _say_once(f"files of another rate are resampled to {sample_rate} Hz", path)
    if header.num_channels > 1:
        _say_once("of files with several channels, the mean is used", path)


def _say_once(what: str, path: str | os.PathLike) -> None:
    if what not in _said:
        _said.add(what)
        logger.warning("%s: %s (said once)", os.fspath(path), what)


def as_waveform(block: Any) -> torch.Tensor:
    """A part of a waveform as a tensor; a ValueError if it is none."""
    wav_L = torch.as_tensor(block)
    if wav_L.dim() != 1 or not wav_L.is_floating_point():
        raise ValueError(
            f"a waveform must be of shape (samples,), of floats from -1 to 1, got {wav_L.dtype} of "
            f"shape {tuple(wav_L.shape)}; convert it first"
        )
    if not wav_L.isfinite().all():
        raise ValueError("a waveform must not have samples that are NaN or infinite")
    return wav_L.float()


def read_short(blocks: Blocks, num_samples: int) -> torch.Tensor | None:
    """The waveform, if it has at most so many samples."""
    parts, left = [], num_samples
    for block in blocks:
        parts.append(block)
        left -= len(block)
        if left < 0:
            return None
    return torch.cat(parts) if parts else torch.zeros(0)
