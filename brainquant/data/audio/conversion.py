"""Decoded audio becomes mono, and gets another sample rate.

Shape suffixes: L samples.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from speechbrain.dataio.preprocess import AudioNormalizer

from ...functional.pieces import cut
from .files import BadAudio

LARGEST_FILTER = 2**24  # samples: two rates without a common divisor need a longer filter
LEAST_POWER = 0.01  # of the mean of channels, as a share of their power: 20 dB less
ZERO_CROSSINGS = 16  # more than there are on a side of the filters that are used here
PIECE = 2**18  # samples that are resampled at once, about


def to_mono(
    blocks: Iterable[np.ndarray], channel: int | None = None, mix_down: bool | str = False
) -> Iterator[np.ndarray]:
    """One channel of each block, or their mean; arguments are those of ``AudioReader``.

    Raises
    ------
    BadAudio
        After the last block, if the channels cancel out.

    Example
    -------
    >>> [block.tolist() for block in to_mono([np.array([[1.0, 3.0], [0.0, 2.0]])], None, "mean")]
    [[2.0, 1.0]]
    """
    if channel is None and mix_down != "mean":
        channel = 0
    power, power_of_mean = 0.0, 0.0
    for block in blocks:
        if channel is not None or block.shape[1] == 1:
            yield block[:, channel or 0].copy()  # a view would keep all channels
            continue
        mean = block.mean(1)
        power += np.square(block, dtype=np.float64).mean(1).sum()
        power_of_mean += np.square(mean, dtype=np.float64).sum()
        yield mean
    if power_of_mean < LEAST_POWER * power:
        decibels = -10 * math.log10(max(power_of_mean / power, 1e-12))
        raise BadAudio(
            f"has channels that cancel out: their mean has {decibels:.0f} dB less power than "
            f"they have; set mix_down: first, or invert the polarity of one of them"
        )


class Resampler:
    """Gives waveforms one sample rate.

    Arguments
    ---------
    sample_rate : int
        Samples per second of the result.

    Example
    -------
    >>> resampler, wav_L = Resampler(16000), torch.rand(50000)
    >>> blocks = torch.cat([*resampler.blocks(iter(wav_L.numpy().reshape(5, -1)), 44100)])
    >>> torch.allclose(blocks, resampler(wav_L, 44100), atol=1e-6)
    True
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.normalize = AudioNormalizer(sample_rate)

    def __call__(self, wav_L: torch.Tensor, rate: int) -> torch.Tensor:
        """Resamples a waveform of another rate."""
        up, down = self._factors(rate)
        if up * down <= LARGEST_FILTER:
            sig = self.normalize(wav_L, rate)
            assert sig is not None, "SpeechBrain returns None for None only"
            return sig
        # torchaudio's filter would take gigabytes, for rates such as 11,127 Hz.
        from scipy.signal import resample_poly

        return torch.from_numpy(resample_poly(wav_L.numpy(), up, down))

    def blocks(self, blocks: Iterable[np.ndarray], rate: int) -> Iterator[torch.Tensor]:
        """Resamples a waveform that comes in blocks, as it would be resampled as a whole."""
        wavs = (torch.from_numpy(block) for block in blocks)
        if rate == self.sample_rate:
            yield from wavs
            return
        # Every ``down`` samples, the filter is where it was: pieces begin there.
        up, down = self._factors(rate)
        reach = math.ceil((ZERO_CROSSINGS * max(1.0, down / up) + 1) / down) * down
        pieces = cut(
            wavs,
            max(1, PIECE // down),
            lambda first, last: (max(0, first * down - reach), last * down + reach),
            lambda num_samples: -(-num_samples // down),
        )
        for piece in pieces:
            skipped = piece.first * up - piece.start // down * up
            length = (piece.last - piece.first) * up
            yield self(piece.wav_L, rate)[skipped : skipped + length]

    def _factors(self, rate: int) -> tuple[int, int]:
        divisor = math.gcd(rate, self.sample_rate)
        return self.sample_rate // divisor, rate // divisor
