"""Prepares manifests of your own speech: a folder of audio, or a manifest in another form."""

import json
import os
from collections.abc import Mapping
from typing import Any

from speechbrain.utils.logger import get_logger

from ..audio.decoders import Header, import_av
from ..audio.reader import as_mix_down
from ..prepare import to_csv, write_whole
from .clips import COLUMNS, Clip, cut, make_unique
from .left_out import Counts, LeftOutList, write_counts
from .sources import Source, find_clips
from .split import divide, without_overlap
from .usable import check_units, find_samples, read_headers

logger = get_logger(__name__)

VERSION = 2  # of the manifests' content; raise it to have existing manifests made again
SETTINGS = "own_speech.json"
SPLITS = ("valid", "train")


def prepare_own_speech(
    source: str | os.PathLike,
    manifest_folder: str | os.PathLike,
    *,
    valid_source: str | os.PathLike | None = None,
    valid_share: float = 0.05,
    max_seconds: float = 20.0,
    min_seconds: float = 1.0,
    mix_down: bool | str = "mean",
    sample_rate: int | None = None,
    resample: bool = True,
    speaker_level: int | None = None,
    seed: int = 1234,
    num_workers: int | None = None,
) -> None:
    """Writes SpeechBrain manifests of audio in any readable format, at any rate.

    Called again with the same settings, it returns at once unless the source has changed: files of
    a folder were added, removed or resized, or the bytes of the manifest are different. It does not
    look at the audio files of an unchanged manifest.

    Arguments
    ---------
    source : str or os.PathLike
        A folder, which is searched with all folders below it, without hidden ones; or a manifest of
        SpeechBrain, NeMo, lhotse, Kaldi, fairseq, Common Voice or Hugging Face, see the README of
        recipes/OwnSpeech. A table needs only a column ``wav``, of paths that are relative to the
        table's folder or begin with ``$data_root`` for it. The columns ``ID``, ``spk_id``,
        ``channel`` (from 0), and ``start`` and ``stop`` (samples, at the file's own rate) or
        ``start_time`` and ``end_time`` (seconds) are used if they exist. Further columns are kept:
        a segment has those of its clip, even its text. ``duration`` is measured again.
    manifest_folder : str or os.PathLike
        Where to write ``train.csv`` and ``valid.csv``, with the columns ID, duration (seconds), wav
        (absolute paths: ``data_folder:`` in the YAML may be anything), start, stop, channel, spk_id
        and those of the manifest; ``left_out.csv``: what cannot be used, and why; and
        ``counts.json``: the number of clips that were cut, and of those that are too short. Only
        headers are read; a file with broken samples is left out in training.
    valid_source : str or os.PathLike or None
        The validation audio, in the form of ``source``. A clip of ``source`` that shares audio with
        one of these clips is not used for training. None: a part of ``source``, of whole speakers
        if at least two are known, else of whole files.
    valid_share : float
        The share of the seconds for validation, at most a half; see
        ``brainquant.data.own_speech.split.divide``.
    max_seconds : float
        Longer clips are cut into equal segments, by the columns start and stop.
    min_seconds : float
        Shorter clips and segments are left out.
    mix_down : bool or str
        As for ``brainquant.data.audio.AudioReader``. ``each``: every channel becomes a clip with
        its own speaker; all channels of a file are in the same manifest.
    sample_rate, resample : int or None, bool
        As for ``AudioReader``: what it would refuse is left out.
    speaker_level : int or None
        Speakers are the folders this many levels below the source; 0: there are none. None: the
        folders of the first level whose names do not mean something else (``train-clean-100``,
        ``dev``, ``wav``, ``v1.0``), if it has at least 5 folders.
    seed : int
        Another seed chooses other validation audio.
    num_workers : int or None
        The number of threads. None: 16.

    Raises
    ------
    ValueError
        If a manifest is not clear, more than half of the files or clips cannot be used, nothing is
        left, there is only one file and no ``valid_source``, or ``manifest_folder`` has manifests
        of another corpus.

    Example
    -------
    >>> import numpy, soundfile
    >>> folder = getfixture("tmp_path")
    >>> for name, seconds in (("long.ogg", 4), ("short.flac", 2)):
    ...     soundfile.write(folder / name, numpy.zeros(22050 * seconds), 22050)
    >>> prepare_own_speech(folder, folder / "manifests", max_seconds=2, seed=1)
    >>> print((folder / "manifests" / "train.csv").read_text().replace(str(folder), "..."), end="")
    ID,duration,wav,start,stop,channel,spk_id
    long-000,2.0,.../long.ogg,0,44100,,
    long-001,2.0,.../long.ogg,44100,88200,,
    """
    _check(source, valid_share, min_seconds, max_seconds, speaker_level, seed)
    folder = os.path.abspath(manifest_folder)
    paths = {"train": os.path.abspath(source)}
    if valid_source is not None:
        paths["valid"] = os.path.abspath(valid_source)
    if speaker_level is not None and not any(map(os.path.isdir, paths.values())):
        raise ValueError(
            f"speaker_level is for folders, got speaker_level={speaker_level} where source is "
            f"{source}; set speaker_level: null, and name speakers in the manifest"
        )
    reading = {
        "mix_down": as_mix_down(mix_down), "sample_rate": sample_rate, "resample": resample
    }  # fmt: skip
    sources = {part: find_clips(path, speaker_level) for part, path in paths.items()}
    settings = {
        "corpus": "OwnSpeech",
        "version": VERSION,
        "sources": paths,
        "states": {part: found.state for part, found in sources.items()},
        "valid_share": valid_share,
        "max_seconds": max_seconds,
        "min_seconds": min_seconds,
        **reading,
        "speaker_level": speaker_level,
        "codecs": import_av() is not None,
        "seed": seed,
    }
    if _is_ready(folder, settings):
        logger.info(f"OwnSpeech is ready in {folder}")
        return
    # Manifests mean that the preparation is complete: they are removed first and written last.
    os.makedirs(folder, exist_ok=True)
    for part in SPLITS:
        if os.path.exists(path := os.path.join(folder, f"{part}.csv")):
            os.remove(path)
    write_whole(os.path.join(folder, SETTINGS), json.dumps(settings, indent=2) + "\n")
    wavs = dict.fromkeys(clip.wav for found in sources.values() for clip in found.clips)
    headers, bad = read_headers(list(wavs), num_workers)
    left_out = LeftOutList(folder)
    usable = {
        part: _usable(path, sources[part], headers, bad, reading, min_seconds, left_out)
        for part, path in paths.items()
    }
    if "valid" in usable:
        num_clips = len(usable["train"])
        usable["train"] = without_overlap(usable["train"], usable["valid"])
        logger.info(
            f"{num_clips - len(usable['train'])} of {num_clips} clips of source share audio with "
            f"valid_source and are not used for training"
        )
    clips, counts = {}, {}
    for part, path in paths.items():
        clips[part], counts[part] = _cut_all(path, usable[part], headers, min_seconds, max_seconds)
    write_counts(folder, counts)
    more = dict.fromkeys(column for part in paths for column in clips[part][0].more)
    if "valid" not in clips:
        clips["train"], clips["valid"] = divide(clips["train"], valid_share, seed, str(source))
    for part in SPLITS:
        rows = [
            [*clip.row, *(clip.more.get(column, "") for column in more)] for clip in clips[part]
        ]
        write_whole(os.path.join(folder, f"{part}.csv"), to_csv([[*COLUMNS, *more], *rows]))
        hours = sum(clip.seconds for clip in clips[part]) / 3600
        logger.info(f"{part}.csv: {len(rows)} clips, {hours:.3f} hours")


def _check(
    source: str | os.PathLike,
    valid_share: float,
    min_seconds: float,
    max_seconds: float,
    speaker_level: int | None,
    seed: int,
) -> None:
    if not source:
        raise ValueError(
            f"source must be a folder or a manifest, got source={source!r}; set source:"
        )
    if not 0 < valid_share <= 0.5:
        raise ValueError(
            f"valid_share must be above 0 and at most 0.5, the share of the seconds that "
            f"validation takes, got valid_share={valid_share}; set it to 0.05"
        )
    if not 0 <= min_seconds < max_seconds < float("inf"):
        raise ValueError(
            f"min_seconds must be from 0 up and below max_seconds, got min_seconds={min_seconds}, "
            f"max_seconds={max_seconds}; set them to 1.0 and 20.0"
        )
    if speaker_level is not None and (type(speaker_level) is not int or speaker_level < 0):
        raise ValueError(
            f"speaker_level must be a whole number from 0 up or null, got "
            f"speaker_level={speaker_level!r}; set speaker_level: null"
        )
    if not isinstance(seed, int):
        raise ValueError(f"seed must be a whole number, got seed={seed!r}; set seed: 1234")


def _is_ready(folder: str, settings: Mapping[str, Any]) -> bool:
    """Whether the manifests were made with these settings; those of another corpus are refused."""
    there = [os.path.exists(os.path.join(folder, f"{part}.csv")) for part in SPLITS]
    try:
        with open(os.path.join(folder, SETTINGS), encoding="utf-8") as file:
            return json.load(file) == settings and all(there)
    except FileNotFoundError:
        if any(there):
            raise ValueError(
                f"manifest_folder has manifests of another corpus, got manifest_folder={folder!r}; "
                f"choose another manifest_folder:, or move them away"
            ) from None
    except json.JSONDecodeError:
        pass  # the machine failed while it was written
    return False


def _usable(
    path: str,
    source: Source,
    headers: Mapping[str, Header],
    unreadable: Mapping[str, str],
    reading: dict[str, Any],
    min_seconds: float,
    left_out: LeftOutList,
) -> list[tuple[Clip, int, int]]:
    """The clips of a source that can be used, with their samples in their files."""
    if source.remark:
        logger.info(f"{path}: {source.remark}")
    if source.warning:
        logger.warning(f"{path}: {source.warning}; listed in {left_out.name}")
    left_out.add(source.left_out.items())
    wavs = dict.fromkeys(clip.wav for clip in source.clips)
    left_out.refuse_half(
        [(wav, unreadable[wav]) for wav in wavs if wav in unreadable],
        len(wavs),
        f"files in {path}",
        "convert them to FLAC, or mend the paths: they are relative to the manifest, and "
        "$data_root is its folder",
    )
    check_units(path, source.clips, headers, min_seconds)
    usable, bad = find_samples(source.clips, headers, **reading)
    left_out.refuse_half(
        bad, len(bad) + len(usable), f"clips in {path}", "mend them, or take them out"
    )
    return usable


def _cut_all(
    path: str,
    usable: list[tuple[Clip, int, int]],
    headers: Mapping[str, Header],
    min_seconds: float,
    max_seconds: float,
) -> tuple[list[Clip], Counts]:
    """The clips of a source, cut to ``max_seconds``, without those below ``min_seconds``."""
    pieces = [
        cut(clip, start, stop, headers[clip.wav].sample_rate, max_seconds)
        for clip, start, stop in usable
    ]
    kept = [piece for parts in pieces for piece in parts if piece.seconds >= min_seconds]
    make_unique(kept)
    long = [len(parts) for parts in pieces if len(parts) > 1]
    seconds = sum(piece.seconds for parts in pieces for piece in parts)
    short = sum(map(len, pieces)) - len(kept)
    counts = Counts(len(usable), len(long), short, seconds - sum(clip.seconds for clip in kept))
    speakers = {clip.row[-1] for clip, *_ in usable} - {""}
    text = (
        f"{path}: {len({clip.wav for clip, *_ in usable})} files, {len(usable)} clips, "
        f"{seconds / 3600:.3f} hours, {len(speakers) or 'no known'} speakers; {len(long)} clips "
        f"longer than {max_seconds:g} s, cut into {sum(long)}; {short} shorter than "
        f"{min_seconds:g} s, left out"
    )
    if not kept:
        raise ValueError(
            f"{text}: nothing is left; set min_seconds: to less"
            if usable
            else f"{path}: all of its clips share audio with valid_source; set source: to more"
        )
    logger.info(text)
    return kept, counts
