"""Audio files become waveforms of one sample rate, or are refused with one clear reason."""

import math
import os
from collections.abc import Iterable

import numpy as np
import torch
from speechbrain.dataio.preprocess import AudioNormalizer

from .decoders import read_samples
from .files import BadAudio
from .headers import MIX_DOWNS, check_clip, read_header

LARGEST_FILTER = 2**24  # samples: two rates without a common divisor need a longer filter
LEAST_POWER = 0.01  # of the mean of channels, as a share of their power: 20 dB less


class AudioReader:
    """Reads a clip as a mono waveform of one sample rate.

    A clip is a file, a part of a file, or a file inside an uncompressed tar. Decoding goes block by
    block: the memory that it needs depends on the length of the clip, not on that of its file or on
    the number of channels.

    Values are those of the file: a float file may exceed +-1. Silence, an offset and clipping are
    accepted.

    Arguments
    ---------
    sample_rate : int
        Samples per second of the waveforms.
    resample : bool
        Whether to resample files of other rates. If not, they are bad audio.
    mix_down : bool or str
        How several channels become one if the manifest does not name a channel for the clip.
        False: they are bad audio. "mean", or True: their mean; it is bad audio if it has 20 dB less
        power than the channels, which then cancel out. "first": the first channel. "each": bad
        audio, because each row of the manifest must name its channel.
    min_samples : int
        Shorter waveforms are bad audio, whatever the manifest says.

    Example
    -------
    >>> import soundfile
    >>> path = str(getfixture("tmp_path") / "tone.wav")
    >>> soundfile.write(path, torch.full((8000, 2), 0.5).numpy(), 8000)
    >>> AudioReader(16000, resample=True, mix_down="mean")(path, 1.0).shape
    torch.Size([16000])
    """

    def __init__(
        self,
        sample_rate: int,
        *,
        resample: bool = False,
        mix_down: bool | str | None = False,
        min_samples: int = 1,
    ):
        self.sample_rate = sample_rate
        self.resample = resample
        self.mix_down = as_mix_down(mix_down)
        self.min_samples = min_samples
        self.normalize = AudioNormalizer(sample_rate)

    def __call__(
        self,
        path: str | os.PathLike,
        duration: float,
        *,
        start: int | None = None,
        stop: int | None = None,
        channel: int | None = None,
        offset: int | None = None,
        size: int | None = None,
    ) -> torch.Tensor:
        """Reads a clip.

        Arguments
        ---------
        path : str or os.PathLike
            Any format that libsndfile reads or, with ``brainquant[codecs]``, ffmpeg; or a tar of
            such files.
        duration : float
            Its expected seconds; 0.1 s or 1 % more or less is accepted. A file that is cut in the
            middle may be read without an error; a longer one would not fit into its batch.
        start, stop : int or None
            The first sample of the clip and the one after its last, at the file's own rate. Only
            these are read, unless the format must be decoded from the beginning. (Those of an Opus
            file differ by a few thousandths from the same part of the whole file.) None: the whole
            file.
        channel : int or None
            The only channel to read, counted from 0. None: see ``mix_down``.
        offset, size : int or None
            Where the clip is in the tar, in bytes. None: the path is not a tar.

        Returns
        -------
        sig : torch.Tensor
            Float32, shape (samples,).

        Raises
        ------
        BadAudio
            If it cannot be read, or is not as the arguments say.
        """
        try:
            header = read_header(path, offset, size)
            first, last = check_clip(
                header,
                start=start,
                stop=stop,
                channel=channel,
                sample_rate=self.sample_rate,
                resample=self.resample,
                mix_down=self.mix_down,
            )
            rate = header.sample_rate
            check_duration((last - first) / rate, duration)
            audio = self._to_mono(read_samples(header, first, last), channel)
            check_duration(len(audio) / rate, duration)
            sig = self._to_sample_rate(audio, rate)
            if len(sig) < self.min_samples:
                raise BadAudio(f"has {len(sig)} samples, {self.min_samples} are needed")
            if not sig.isfinite().all():
                raise BadAudio("has samples that are NaN or infinite")
        except BadAudio as error:
            raise bad_clip(error, path, start, stop, channel, offset, size) from None
        return sig

    def _to_mono(self, blocks: Iterable[np.ndarray], channel: int | None) -> np.ndarray:
        if channel is None and self.mix_down != "mean":
            channel = 0
        mono, power, power_of_mean = [np.zeros(0, np.float32)], 0.0, 0.0
        for block in blocks:
            if channel is not None or block.shape[1] == 1:
                mono.append(block[:, channel or 0].copy())  # a view would keep all channels
                continue
            mono.append(block.mean(1))
            power += np.square(block, dtype=np.float64).mean(1).sum()
            power_of_mean += np.square(mono[-1], dtype=np.float64).sum()
        if power_of_mean < LEAST_POWER * power:
            decibels = -10 * math.log10(max(power_of_mean / power, 1e-12))
            raise BadAudio(
                f"has channels that cancel out: their mean has {decibels:.0f} dB less power than "
                f"they have; set mix_down: first, or invert the polarity of one of them"
            )
        return np.concatenate(mono)

    def _to_sample_rate(self, audio: np.ndarray, rate: int) -> torch.Tensor:
        divisor = math.gcd(rate, self.sample_rate)
        up, down = self.sample_rate // divisor, rate // divisor
        if up * down <= LARGEST_FILTER:
            sig = self.normalize(torch.from_numpy(audio), rate)
            assert sig is not None, "SpeechBrain returns None for None only"
            return sig
        # torchaudio's filter would take gigabytes, for rates such as 11,127 Hz.
        from scipy.signal import resample_poly

        return torch.from_numpy(resample_poly(audio, up, down))


def as_mix_down(mix_down: bool | str | None) -> bool | str:
    """Checks a value of ``mix_down:`` in the YAML; True becomes "mean".

    Example
    -------
    >>> as_mix_down(True), as_mix_down(False)
    ('mean', False)
    """
    value = {True: "mean", None: False}.get(mix_down, mix_down)
    if value not in MIX_DOWNS:
        raise ValueError(
            f"mix_down must be False, mean, first or each, got mix_down={mix_down!r}; set mix_down:"
        )
    return value


def check_duration(seconds: float, expected: float) -> None:
    """Refuses a clip that is longer or shorter than its manifest says."""
    if abs(seconds - expected) > max(0.1, 0.01 * expected):
        raise BadAudio(f"lasts {seconds:.4g} s where the manifest says {expected:.4g} s")


def bad_clip(
    error: BadAudio,
    path: str | os.PathLike,
    start: int | None = None,
    stop: int | None = None,
    channel: int | None = None,
    offset: int | None = None,
    size: int | None = None,
) -> BadAudio:
    """A ``BadAudio`` that names the clip before the reason.

    Example
    -------
    >>> bad_clip(BadAudio("has no samples"), "a.tar", offset=512, size=100)
    BadAudio('a.tar, bytes 512 to 612: has no samples')
    """
    text = str(path)
    if offset is not None and size is not None:
        text += f", bytes {offset} to {offset + size}"
    if start is not None:
        text += f", samples {start} to {stop}"
    if channel is not None:
        text += f", channel {channel}"
    return BadAudio(f"{text}: {error}")
