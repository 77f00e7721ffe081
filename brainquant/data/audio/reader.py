"""Audio files become waveforms of one sample rate, or are refused with one clear reason."""

import os
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from .conversion import Resampler, to_mono
from .decoders import Header, read_samples
from .files import BadAudio
from .headers import MIX_DOWNS, check_clip, read_header


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
        self.resampler = Resampler(sample_rate)

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
            mono = to_mono(read_samples(header, first, last), channel, self.mix_down)
            audio = np.concatenate([np.zeros(0, np.float32), *mono])
            check_duration(len(audio) / rate, duration)
            sig = self.resampler(torch.from_numpy(audio), rate)
            if len(sig) < self.min_samples:
                raise BadAudio(f"has {len(sig)} samples, {self.min_samples} are needed")
            if not sig.isfinite().all():
                raise BadAudio("has samples that are NaN or infinite")
        except BadAudio as error:
            raise bad_clip(error, path, start, stop, channel, offset, size) from None
        return sig

    def blocks(self, path: str | os.PathLike) -> Iterator[torch.Tensor]:
        """Reads a whole file block by block: what ``__call__`` gives, in bounded memory.

        Raises
        ------
        BadAudio
            As ``__call__``; if it is the end of the file that cannot be used, after the blocks
            before it.
        """
        try:
            header = read_header(path)
            first, last = check_clip(
                header,
                sample_rate=self.sample_rate,
                resample=self.resample,
                mix_down=self.mix_down,
            )
            mono = to_mono(read_samples(header, first, last), mix_down=self.mix_down)
            for block in self.resampler.blocks(_all(mono, header), header.sample_rate):
                if not block.isfinite().all():
                    raise BadAudio("has samples that are NaN or infinite")
                yield block
        except BadAudio as error:
            raise bad_clip(error, path) from None


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


def _all(blocks: Iterable[np.ndarray], header: Header) -> Iterator[np.ndarray]:
    """The blocks of a whole file, which is refused if samples are missing at its end."""
    num_samples = 0
    for block in blocks:
        num_samples += len(block)
        yield block
    check_duration(
        num_samples / header.sample_rate, header.num_samples / header.sample_rate, "its header"
    )


def check_duration(seconds: float, expected: float, source: str = "the manifest") -> None:
    """Refuses a clip that is longer or shorter than its manifest, or its header, says."""
    if abs(seconds - expected) > max(0.1, 0.01 * expected):
        raise BadAudio(f"lasts {seconds:.4g} s where {source} says {expected:.4g} s")


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
