"""A file, a folder or a manifest becomes a list of clips, and a list of what cannot be read."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os

from speechbrain.utils.logger import get_logger

from ..data.audio.decoders import Header
from ..data.own_speech import clips as found_clips
from ..data.own_speech.sources import Source, find_clips
from ..data.own_speech.usable import check_units, find_samples, read_headers
from ..data.tables import ENDINGS, ending_of
from .clips import Clip

logger = get_logger(__name__)

LEAST_SECONDS = 0.1  # if most clips seem shorter, their times are in another unit


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A clip or file that is not encoded."""

    id: str  # empty for a file that is no clip
    path: str
    reason: str


@dataclasses.dataclass
class Corpus:
    """The clips of a source that can be read, by their headers, in its order."""

    clips: list[Clip]
    left_out: list[LeftOut]
    root: str  # a folder that all files are below


def find_source(path: str, data_folder: str | None = None) -> Source:
    """The clips of an audio file, a folder or a manifest; no audio file is opened.

    ``state`` of the result changes when files of a folder are added, removed or resized, or when
    the manifest changes.

    Arguments
    ---------
    path : str
        An audio file, or what ``brainquant.data.own_speech.sources.find_clips`` reads.
    data_folder : str or None
        What ``$data_root`` in a manifest stands for. None: the folder of the manifest.

    Raises
    ------
    ValueError
        If there is no such path, or if it has no audio.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a b.flac"
    >>> path.touch()
    >>> [clip.id for clip in find_source(str(path)).clips]
    ['a_b']
    """
    if not os.path.exists(path):
        raise ValueError(
            f"SOURCE {path} does not exist; give an audio file, a folder of audio or a manifest"
        )
    path = os.path.abspath(path)
    if os.path.isfile(path) and ending_of(path) not in (*ENDINGS, ".scp"):
        name = os.path.basename(path)
        state = hashlib.blake2b(f"{name}\0{os.path.getsize(path)}".encode(), digest_size=16)
        clip = found_clips.Clip(found_clips.make_id(name), path, name)
        return Source([clip], state.hexdigest())
    source = find_clips(path, data_folder=data_folder)
    found_clips.make_unique(source.clips)
    return source


def read_corpus(path: str, source: Source, sample_rate: int, min_samples: int) -> Corpus:
    """Reads the headers of all files.

    Arguments
    ---------
    path : str
        The source, for messages.
    source : Source
        What ``find_source`` has found there.
    sample_rate : int
        Samples per second that the model needs.
    min_samples : int
        Samples, at this rate, of the shortest clip that has a frame.

    Raises
    ------
    ValueError
        If nothing can be read, or if the times of a manifest are in another unit.

    Example
    -------
    >>> import soundfile
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", [0.0] * 8000, 8000)
    >>> (folder / "b.wav").touch()
    >>> corpus = read_corpus("it", find_source(str(folder)), 16000, 1)
    >>> corpus.clips[0].seconds, [clip.id for clip in corpus.left_out]
    (1.0, ['b'])
    """
    headers, unreadable = read_headers(list(dict.fromkeys(c.wav for c in source.clips)), None)
    check_units(path, source.clips, headers, LEAST_SECONDS)
    clips = []
    left_out = [LeftOut("", *item) for item in source.left_out.items()]
    for clip in source.clips:
        found = unreadable.get(clip.wav) or _clip_of(clip, headers, sample_rate, min_samples)
        if isinstance(found, Clip):
            clips.append(found)
        else:
            left_out.append(LeftOut(clip.id, clip.wav, found))
    if not clips:
        first = left_out[0]
        raise ValueError(
            f"none of the {len(left_out)} clips of {path} can be read; the first is {first.path}: "
            f"{first.reason}"
        )
    rates = collections.Counter(c.sample_rate for c in clips if c.sample_rate != sample_rate)
    if rates:
        many = " and ".join(f"{number} of {rate} Hz" for rate, number in rates.most_common())
        logger.info(f"{path}: resamples {many} to {sample_rate} Hz, of {len(clips)} clips")
    root = (
        path
        if os.path.isdir(path)
        else os.path.commonpath([os.path.dirname(c.path) for c in clips])
    )
    return Corpus(clips, left_out, os.path.abspath(root))


def _clip_of(
    clip: found_clips.Clip, headers: dict[str, Header], sample_rate: int, min_samples: int
) -> Clip | str:
    """The clip with its samples, or the reason why it cannot be used."""
    usable, bad = find_samples(
        [clip], headers, mix_down="mean", sample_rate=sample_rate, resample=True
    )
    if bad:
        return bad[0][1]
    _, start, stop = usable[0]
    rate = headers[clip.wav].sample_rate
    if (samples := -(-(stop - start) * sample_rate // rate)) < min_samples:
        return f"is too short for a frame: {samples} samples at {sample_rate} Hz, not {min_samples}"
    first = None if clip.start is None else start
    return Clip(clip.id, clip.wav, stop - start, rate, first, clip.channel)
