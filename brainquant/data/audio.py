"""Audio files become waveforms of one kind, or one clear reason why not."""

import io
import math
import os

import torch
from speechbrain.dataio import audio_io
from speechbrain.dataio.preprocess import AudioNormalizer

from .headers import BadAudio

LARGEST_FILTER = 2**24  # samples: what two sample rates with no common divisor ask for is more

MP3_LEAD_IN = 10 * 1152  # samples: frames of the largest size


class AudioReader:
    """Reads a clip as a mono waveform of one sample rate.

    A clip is a file, a part of a file, or a file inside an uncompressed tar.

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

    def __call__(self, path, duration, *, start=None, stop=None, offset=None, size=None):
        """Reads a clip.

        Arguments
        ---------
        path : str
            Any format that libsndfile reads, or a tar of such files.
        duration : float
            Seconds that it is to last, give or take 0.1 s or 1 %: a file cut in the middle may
            be read without an error, one that is longer would not fit into its batch.
        start, stop : int or None
            The first sample of the clip and the one after its last, at the file's own rate. Only
            these are read, however long the file is. None: the whole file. (Only those of an Opus
            file differ from what reading the whole file gives, by a few thousandths.)
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
            open_clip = clip_opener(path, offset, size)
            info = audio_io.info(open_clip())
            first, num_frames = _frames_of(info, start, stop)
            self._check_header(info, num_frames, duration)
            lead = lead_in(info.subtype, first)
            audio, rate = audio_io.load(
                open_clip(),
                channels_first=False,
                dtype=torch.float32,
                frame_offset=first - lead,
                num_frames=lead + num_frames,
            )
            audio = audio[lead:]
            _check_duration(len(audio) / rate, duration)
            sig = self.normalize(audio, rate)
            if len(sig) < self.min_samples:
                raise BadAudio(f"has {len(sig)} samples, {self.min_samples} are needed")
            if not sig.isfinite().all():
                raise BadAudio("has samples that are NaN or infinite")
        except (BadAudio, RuntimeError) as error:  # audio_io makes it of whatever goes wrong
            raise bad_clip(error, path, start, stop, offset, size) from None
        return sig

    def _check_header(self, info, num_frames, duration):
        """Refuses a file before its samples take time and memory."""
        rate = info.sample_rate
        if rate != self.sample_rate and not self.resample:
            raise BadAudio(f"has {rate} samples per second, not {self.sample_rate}")
        if rate * self.sample_rate // math.gcd(rate, self.sample_rate) ** 2 > LARGEST_FILTER:
            raise BadAudio(f"has {rate} samples per second, too odd for {self.sample_rate}")
        if info.channels > 1 and not self.mix_down:
            raise BadAudio(f"has {info.channels} channels, not one")
        _check_duration(num_frames / rate, duration)


def clip_opener(path, offset=None, size=None):
    """What libsndfile opens: a path or, for a clip inside a tar, its bytes.

    No file stays open in between: workers that are forked would share its position.

    Arguments
    ---------
    path : str
        A file, or the tar.
    offset, size : int or None
        Bytes of the tar.

    Returns
    -------
    open_clip : callable
        Gives the path, or the bytes as a file at its beginning.

    Raises
    ------
    BadAudio
        Where the tar has no such bytes.
    """
    if offset is None:
        return lambda: path
    content = read_bytes(path, offset, size)
    return lambda: io.BytesIO(content)


def read_bytes(path, offset=None, size=None):
    """The bytes of a whole file, or of a clip inside a tar; ``BadAudio`` where they are not there.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.tar"
    >>> _ = path.write_bytes(b"0123456789")
    >>> read_bytes(path, 3, 4)
    b'3456'
    """
    try:
        with open(path, "rb") as file:
            if offset is None:
                return file.read()
            end = os.fstat(file.fileno()).st_size
            if end < offset + size:
                raise BadAudio(f"ends at byte {end}")
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise BadAudio(f"cannot be read ({error.strerror})") from None


def bad_clip(error, path, start=None, stop=None, offset=None, size=None):
    """What went wrong with a clip, as a ``BadAudio`` that says which.

    Example
    -------
    >>> bad_clip(BadAudio("has no samples"), "a.tar", offset=512, size=100)
    BadAudio('a.tar, bytes 512 to 612: has no samples')
    """
    if not isinstance(error, BadAudio):
        cause = error.__cause__ or error
        # libsndfile's reason alone: the name before it is a memory address where bytes are read
        error = f"cannot be read ({getattr(cause, 'error_string', cause)})"
    inside = "" if offset is None else f", bytes {offset} to {offset + size}"
    part = "" if start is None else f", samples {start} to {stop}"
    return BadAudio(f"{path}{inside}{part}: {error}")


def lead_in(subtype, start):
    """How many samples before a segment have to be decoded with it, for it to be right.

    The frames of MP3 take bits from those before them: libsndfile 1.2.2 gives silence for what it
    cannot decode after a seek, up to a tenth of a second of speech.

    Example
    -------
    >>> lead_in("PCM_16", 50000), lead_in("MPEG_LAYER_III", 50000), lead_in("MPEG_LAYER_III", 100)
    (0, 11520, 100)
    """
    return min(start, MP3_LEAD_IN) if subtype.startswith("MPEG_LAYER") else 0


def _frames_of(info, start, stop):
    """The first sample of a clip and how many they are to be."""
    if info.frames == 0:
        raise BadAudio("has no samples")
    if start is None:
        return 0, info.frames
    if info.frames <= start:
        raise BadAudio(f"has {info.frames} samples, none of them is in the clip")
    return start, stop - start


def _check_duration(seconds, expected):
    if abs(seconds - expected) > max(0.1, 0.01 * expected):
        raise BadAudio(f"lasts {seconds:.4g} s where the manifest says {expected:.4g} s")
