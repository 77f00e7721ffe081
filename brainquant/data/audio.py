"""Audio files become waveforms of one kind, or one clear reason why not."""

import math

import torch
from speechbrain.dataio import audio_io
from speechbrain.dataio.preprocess import AudioNormalizer

LARGEST_FILTER = 2**24  # samples: what two sample rates with no common divisor ask for is more


class BadAudio(ValueError):
    """An audio file that cannot be trained on; the text names the file and says why."""


class AudioReader:
    """Reads a whole file as a mono waveform of one sample rate.

    Values are as in the file: those of a float file beyond +-1 are kept, and silence, an offset
    or clipping is no fault.

    Arguments
    ---------
    sample_rate : int
        Samples per second of the waveforms.
    resample : bool
        Whether files of other rates are resampled; else they are bad audio.
    mix_down : bool
        Whether several channels become their mean; else they are bad audio.
    min_samples : int
        Shorter waveforms are bad audio, whatever the manifest says.

    Example
    -------
    >>> path = str(getfixture("tmp_path") / "tone.wav")
    >>> audio_io.save(path, torch.full((2, 8000), 0.5), 8000)
    >>> AudioReader(16000, resample=True, mix_down=True)(path, 1.0).shape
    torch.Size([16000])
    """

    def __init__(self, sample_rate, *, resample=False, mix_down=False, min_samples=1):
        self.sample_rate = sample_rate
        self.resample = resample
        self.mix_down = mix_down
        self.min_samples = min_samples
        self.normalize = AudioNormalizer(sample_rate)

    def __call__(self, path, duration):
        """Reads a file.

        Arguments
        ---------
        path : str
            Any format that libsndfile reads.
        duration : float
            Seconds that it is to last, give or take 0.1 s or 1 %: a file cut in the middle may
            be read without an error, one that is longer would not fit into its batch.

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
            self._check_header(audio_io.info(path), duration)
            audio, rate = audio_io.load(path, channels_first=False, dtype=torch.float32)
            _check_duration(len(audio) / rate, duration)
            sig = self.normalize(audio, rate)
            if len(sig) < self.min_samples:
                raise BadAudio(f"has {len(sig)} samples, {self.min_samples} are needed")
            if not sig.isfinite().all():
                raise BadAudio("has samples that are NaN or infinite")
        except BadAudio as error:
            raise BadAudio(f"{path}: {error}") from None
        except RuntimeError as error:  # audio_io makes it of whatever goes wrong
            raise BadAudio(f"{path}: cannot be read ({error.__cause__ or error})") from None
        return sig

    def _check_header(self, info, duration):
        """Refuses a file before its samples take time and memory."""
        rate = info.sample_rate
        if rate != self.sample_rate and not self.resample:
            raise BadAudio(f"has {rate} samples per second, not {self.sample_rate}")
        if rate * self.sample_rate // math.gcd(rate, self.sample_rate) ** 2 > LARGEST_FILTER:
            raise BadAudio(f"has {rate} samples per second, too odd for {self.sample_rate}")
        if info.channels > 1 and not self.mix_down:
            raise BadAudio(f"has {info.channels} channels, not one")
        if info.frames == 0:
            raise BadAudio("has no samples")
        _check_duration(info.duration, duration)


def _check_duration(seconds, expected):
    if abs(seconds - expected) > max(0.1, 0.01 * expected):
        raise BadAudio(f"lasts {seconds:.4g} s where the manifest says {expected:.4g} s")
