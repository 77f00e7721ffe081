"""What a waveform is like: its level, silence, clipping and bandwidth.

Shape suffixes: L samples, T frames, N samples of a frame, F frequencies.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

QUIET = -60.0  # dB below full scale: a frame below it may be a pause
BELOW_SPEECH = 30.0  # dB by which a pause is below the loud frames of its clip
CEILING = 0.99  # of full scale: clipped samples are there, or above after resampling
OVERSHOOT = 1.3  # of full scale, to which resampling takes clipped samples
FLAT = 1e-4  # by which the samples of a flat top may differ, as a share of the peak
LEAST_PEAK = 0.1  # of full scale: below it, equal samples are steps of 16 bits
RUN = 3  # samples in a row at the ceiling are clipped
FRAME_SECONDS = 0.02  # of a frame whose level is measured
WINDOW_SECONDS = 0.032  # of a window whose spectrum is measured
BLOCK = 2**20  # samples that are looked at together
CLIFF = 42.0  # dB from the octave below a cut-off frequency to above it; speech alone: 37 at most
SOURCE_RATES = (8000, 11025, 12000, 16000, 22050, 24000)  # Hz of recordings that were resampled
HIGHEST = 0.7  # of the highest frequency: a cut-off below it is a narrow band
LEAST_LEVEL = 1e-12  # mean square, for logarithms
STEP_POWER = 2.0**-30 / 4  # mean square of the noise of 16 bits with dither


class Sound(NamedTuple):
    """A clip as training gets it.

    Attributes
    ----------
    content : bytes
        The same for the same samples.
    is_silent : bool
        Whether all samples are equal.
    level : float
        Root mean square in dB below full scale, without the offset.
    offset : float
        The mean of the samples, as a share of full scale.
    empty : float
        The share of frames in which all samples are equal: digital silence.
    quiet : float
        The share of frames that are pauses: digital silence, or below -60 dB and 30 dB below the
        loud frames of the clip.
    clipped : float
        The share of samples in flat tops: three or more in a row at full scale, or at the peak.
    cutoff : float or None
        The frequency, in Hz, above which there is nothing, if that is a narrow band; infinity for
        a full band; None if the clip is too quiet to say.
    """

    content: bytes
    is_silent: bool
    level: float
    offset: float
    empty: float
    quiet: float
    clipped: float
    cutoff: float | None


def measure(wav_L: np.ndarray, sample_rate: int) -> Sound:
    """Measures a waveform.

    Example
    -------
    >>> tone_L = 0.1 * np.sin(np.arange(16000) / 4).astype(np.float32)
    >>> sound = measure(tone_L, 16000)
    >>> round(sound.level), sound.quiet, sound.clipped
    (-23, 0.0, 0.0)
    """
    content = hashlib.blake2b(np.ascontiguousarray(wav_L).data, digest_size=16).digest()
    offset = float(wav_L.mean(dtype=np.float64))
    if wav_L.min() == wav_L.max():
        return Sound(content, True, -math.inf, offset, 1.0, 1.0, 0.0, None)
    mean_square = sum(
        float(np.square(block_L - offset, dtype=np.float64).sum()) for block_L in _blocks(wav_L, 1)
    ) / len(wav_L)
    empty, quiet = _pauses(wav_L, offset, sample_rate)
    return Sound(
        content, False, _decibels(mean_square), offset, empty, quiet,
        clipped_share(wav_L), cutoff_of(spectrum_of(wav_L, sample_rate), sample_rate),
    )  # fmt: skip


def _blocks(wav_L: np.ndarray, multiple: int) -> Iterator[np.ndarray]:
    size = max(BLOCK // multiple, 1) * multiple
    for first in range(0, len(wav_L), size):
        yield wav_L[first : first + size]


def _decibels(mean_square: float) -> float:
    return 10 * math.log10(max(mean_square, LEAST_LEVEL))


def _pauses(wav_L: np.ndarray, offset: float, sample_rate: int) -> tuple[float, float]:
    """The shares of frames that are digital silence, and of those that are pauses."""
    size = min(max(1, round(FRAME_SECONDS * sample_rate)), len(wav_L))
    levels, empty = [], []
    for block_L in _blocks(wav_L, size):
        frames_TN = block_L[: len(block_L) // size * size].reshape(-1, size)
        levels.append(np.square(frames_TN - np.float32(offset)).mean(1))
        empty.append(frames_TN.min(1) == frames_TN.max(1))
    level_T = 10 * np.log10(np.maximum(np.concatenate(levels), LEAST_LEVEL))
    is_empty_T = np.concatenate(empty)
    highest = min(QUIET, np.percentile(level_T, 95) - BELOW_SPEECH)
    return float(is_empty_T.mean()), float(((level_T < highest) | is_empty_T).mean())


def clipped_share(wav_L: np.ndarray) -> float:
    """The share of samples that are in flat tops.

    Example
    -------
    >>> tone_L = np.sin(np.arange(16000) / 4)
    >>> clipped_share(tone_L), round(clipped_share(np.clip(2 * tone_L, -0.5, 0.5)), 1)
    (0.0, 0.8)
    """
    peak = float(max(wav_L.max(), -wav_L.min()))
    if peak < LEAST_PEAK:
        return 0.0
    lowest = CEILING if CEILING <= peak <= OVERSHOOT else peak * (1 - FLAT)
    clipped = 0
    for block_L in _blocks(wav_L, 1):
        at_top_L = np.abs(block_L) >= lowest
        if at_top_L.sum() >= RUN:
            edges = np.flatnonzero(np.diff(at_top_L, prepend=False, append=False))
            lengths = edges[1::2] - edges[::2]
            clipped += int(lengths[lengths >= RUN].sum())
    return clipped / len(wav_L)


def spectrum_of(wav_L: np.ndarray, sample_rate: int) -> np.ndarray:
    """The mean square at each frequency from 0 to half the sample rate, less the noise of 16 bits.

    Returns
    -------
    power_F : numpy.ndarray
        Float64; its sum is the mean square of the waveform.
    """
    size = 2 ** round(math.log2(max(WINDOW_SECONDS * sample_rate, 2)))
    window_N = np.hanning(size).astype(np.float32)
    if len(wav_L) < size:
        wav_L = np.pad(wav_L, (0, size - len(wav_L)))
    power_F, frames = np.zeros(size // 2 + 1), 0
    for block_L in _blocks(wav_L, size):
        frames_TN = block_L[: len(block_L) // size * size].reshape(-1, size) * window_N
        power_F += np.square(np.abs(np.fft.rfft(frames_TN))).sum(0)
        frames += len(frames_TN)
    power_F *= 2 / (size * float(np.square(window_N).sum()) * frames)
    return np.maximum(0.0, power_F - STEP_POWER / len(power_F))


def cutoff_of(power_F: np.ndarray, sample_rate: int) -> float | None:
    """The frequency above which a spectrum has nothing: see ``Sound.cutoff``.

    Half of the rate of the recording is such a frequency if it was resampled. From below it to
    above it speech loses 37 dB at most (in 800 clips of LibriSpeech and speechocean762, by a dull
    microphone), and what torchaudio or scipy has resampled 45 dB at least.

    Example
    -------
    >>> hertz = np.arange(257) * 16000 / 512
    >>> cutoff_of(1e-3 * (hertz < 4000), 16000), cutoff_of(1e-3 / (1 + hertz), 16000)
    (4000.0, inf)
    """
    hertz_F = np.linspace(0, sample_rate / 2, len(power_F))
    too_quiet = False
    for rate in SOURCE_RATES:
        edge = rate / 2
        if edge > HIGHEST * sample_rate / 2:
            break
        below = _mean_power(power_F, hertz_F, 0.625 * edge, 0.9375 * edge)
        above = _mean_power(power_F, hertz_F, 1.25 * edge, min(1.875 * edge, 0.47 * sample_rate))
        if _decibels_of(below) < _decibels_of(STEP_POWER / len(power_F)) + CLIFF:
            too_quiet = True
        elif _decibels_of(below) - _decibels_of(above) >= CLIFF:
            return edge
    return None if too_quiet else math.inf


def _mean_power(power_F: np.ndarray, hertz_F: np.ndarray, low: float, high: float) -> float:
    return float(power_F[(hertz_F >= low) & (hertz_F <= high)].mean())


def _decibels_of(power: float) -> float:
    return 10 * math.log10(max(power, 1e-20))
