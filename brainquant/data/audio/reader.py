"""Audio files become waveforms of one kind, or one clear reason why not."""

import math

import numpy as np
import scipy.signal
import torch
from speechbrain.dataio.preprocess import AudioNormalizer

from .decoders import read_media, read_sound
from .files import BadAudio
from .headers import MIX_DOWNS, check_clip, read_header

LARGEST_FILTER = 2**24  # samples: two rates without a common divisor need a longer one
LEAST_POWER = 0.01  # of the mean, as a share of the channels' power: 20 dB less


class AudioReader:
    """Reads a clip as a mono waveform of one sample rate.

    A clip is a file, a part of a file, or a file inside an uncompressed tar. It is decoded in
    blocks: however large its file is and however many channels it has, it takes the memory of one
    channel for as long as the manifest says.

    Values are as in the file: those of a float file beyond +-1 are kept, and silence, an offset
    or clipping is no fault.

    Arguments
    ---------
    sample_rate : int
        Samples per second of the waveforms.
    resample : bool
        Whether files of other rates are resampled; else they are bad audio.
    mix_down : bool or str
        What becomes of several channels where the manifest does not name one for the clip.
        False: they are bad audio. "mean", or True: their mean, which is bad audio where it has
        20 dB less power than they have: such channels cancel out. "first": the first of them.
        "each": bad audio, for each row of the manifest is to name its channel.
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

    def __init__(self, sample_rate, *, resample=False, mix_down=False, min_samples=1):
        self.sample_rate = sample_rate
        self.resample = resample
        self.mix_down = as_mix_down(mix_down)
        self.min_samples = min_samples
        self.normalize = AudioNormalizer(sample_rate)

    def __call__(
        self, path, duration, *, start=None, stop=None, channel=None, offset=None, size=None
    ):
        """Reads a clip.

        Arguments
        ---------
        path : str
            Any format that libsndfile reads or, with ``brainquant[codecs]``, ffmpeg; or a tar of
            such files.
        duration : float
            Seconds that it is to last, give or take 0.1 s or 1 %: a file cut in the middle may
            be read without an error, one that is longer would not fit into its batch.
        start, stop : int or None
            The first sample of the clip and the one after its last, at the file's own rate. Only
            these are read, however long the file is, unless its format cannot be read from there.
            None: the whole file. (Only those of an Opus file differ from what reading the whole
            file gives, by a few thousandths.)
        channel : int or None
            The only channel that is read, from 0 up. None: see ``mix_down``.
        offset, size : int or None
            Where in the tar the clip is, in bytes. None: the path is no tar.

        Returns
        -------
        sig : torch.Tensor
            Float32, shape (samples,).

        Raises
        ------
        BadAudio
            Where it cannot be read, or is not as promised.
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
            read = read_media if header.is_media else read_sound
            blocks = read(path, header, first, last, offset, size)
            audio = self._mono(blocks, channel)
            check_duration(len(audio) / rate, duration)
            sig = self._resample(torch.from_numpy(audio), rate)
            if len(sig) < self.min_samples:
                raise BadAudio(f"has {len(sig)} samples, {self.min_samples} are needed")
            if not sig.isfinite().all():
                raise BadAudio("has samples that are NaN or infinite")
        except BadAudio as error:
            raise bad_clip(error, path, start, stop, channel, offset, size) from None
        return sig

    def _mono(self, blocks, channel):
        """One channel of blocks of several."""
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

    def _resample(self, audio, rate):
        divisor = math.gcd(rate, self.sample_rate)
        if rate * self.sample_rate // divisor**2 <= LARGEST_FILTER:
            return self.normalize(audio, rate)
        # torchaudio's filter, for rates such as 11,127 Hz, would take gigabytes.
        up, down = self.sample_rate // divisor, rate // divisor
        return torch.from_numpy(scipy.signal.resample_poly(audio.numpy(), up, down))


def as_mix_down(mix_down):
    """A value of ``mix_down:`` in the YAML, of which True is "mean".

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


def check_duration(seconds, expected):
    """Refuses a clip that is not as long as its manifest says."""
    if abs(seconds - expected) > max(0.1, 0.01 * expected):
        raise BadAudio(f"lasts {seconds:.4g} s where the manifest says {expected:.4g} s")


def bad_clip(error, path, start=None, stop=None, channel=None, offset=None, size=None):
    """A ``BadAudio`` that names the clip and what is wrong with it.

    Example
    -------
    >>> bad_clip(BadAudio("has no samples"), "a.tar", offset=512, size=100)
    BadAudio('a.tar, bytes 512 to 612: has no samples')
    """
    inside = "" if offset is None else f", bytes {offset} to {offset + size}"
    part = "" if start is None else f", samples {start} to {stop}"
    part += "" if channel is None else f", channel {channel}"
    return BadAudio(f"{path}{inside}{part}: {error}")
