"""A clip of the corpus: an audio file that can be read, or a part of one."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """A clip whose file has a header that can be read.

    Arguments
    ---------
    id : str
        From the manifest, or made from the path; no other clip of the corpus has it.
    path : str
        Absolute path of the file.
    num_samples : int
        Length of the clip, at the file's own rate.
    sample_rate : int
        The file's own rate.
    start : int or None
        First sample of the clip, at the file's own rate; None: the clip is the whole file.
    channel : int or None
        The only channel, counted from 0; None: the mean of all channels.

    Example
    -------
    >>> clip = Clip("a", "/speech/a.flac", num_samples=12000, sample_rate=8000, start=8000)
    >>> clip.seconds, clip.stop
    (1.5, 20000)
    """

    id: str
    path: str
    num_samples: int
    sample_rate: int
    start: int | None = None
    channel: int | None = None

    @property
    def seconds(self) -> float:
        """Length of the clip in seconds."""
        return self.num_samples / self.sample_rate

    @property
    def stop(self) -> int | None:
        """The sample after the last one, at the file's own rate; None: the whole file."""
        return None if self.start is None else self.start + self.num_samples
