"""Speech of one's own: manifests of a folder of audio, or of a list of files, as it is."""

import json
import os

from speechbrain.utils.logger import get_logger

from ..audio.decoders import import_av
from ..audio.headers import BadAudio
from ..audio.reader import as_mix_down
from ..prepare import to_csv, write_whole
from .clips import COLUMNS, cut, make_unique
from .left_out import LeftOut
from .sources import find_clips
from .split import divide, without_overlap
from .usable import check_units, place_clips, read_headers

logger = get_logger(__name__)

VERSION = 2  # of what the manifests hold: a higher number makes existing ones anew
SETTINGS = "own_speech.json"
SPLITS = ("valid", "train")


def prepare_own_speech(
    source,
    manifest_folder,
    *,
    valid_source=None,
    valid_share=0.05,
    max_seconds=20.0,
    min_seconds=1.0,
    mix_down="mean",
    sample_rate=None,
    resample=True,
    speaker_level=None,
    seed=1234,
    num_workers=None,
):
    """Writes SpeechBrain manifests of audio in any format that can be read, at any rate.

    Called again with the same settings it returns at once, unless the source has changed: files of
    a folder were added, removed, or have another size; or the bytes of the manifest have changed,
    whatever became of its audio files.

    Arguments
    ---------
    source : str
        A folder, which is searched with all folders below it, hidden ones left out; or a manifest
        of SpeechBrain, NeMo, lhotse, Kaldi, fairseq, Common Voice or Hugging Face, see the README
        of recipes/OwnSpeech. A table needs a column ``wav`` only, of paths that are relative to it
        or begin with ``$data_root`` for its folder. ``ID``, ``spk_id``, ``channel`` (from 0), and
        ``start`` and ``stop`` (samples, at the file's own rate) or ``start_time`` and ``end_time``
        (seconds) are used where they are there, further columns are kept (a segment has those of
        its clip, a text too), and ``duration`` is measured anew.
    manifest_folder : str
        Where to write ``train.csv`` and ``valid.csv``, with the columns ID, duration (seconds), wav
        (absolute paths: ``data_folder:`` in the YAML may be anything), start, stop, channel, spk_id
        and those of the manifest; and ``left_out.csv``: what cannot be used, and why. Headers are
        read only: a file that is broken further on is left out in training.
    valid_source : str or None
        What ``valid.csv`` is made of, as ``source``; a clip of ``source`` that shares audio with
        one of its clips is taken out of training.
        None: a part of ``source``, of whole speakers where at least two are known, else of whole
        files.
    valid_share : float
        The share of the seconds for validation, at most a half; see
        ``brainquant.data.own_speech.split.divide``.
    max_seconds : float
        Longer clips are cut into equal segments, by the columns start and stop.
    min_seconds : float
        Shorter clips and segments are left out.
    mix_down : bool or str
        As for ``brainquant.data.audio.AudioReader``. ``each``: every channel becomes a clip, with a
        speaker of its own; all channels of a file are in the same part.
    sample_rate, resample : int or None, bool
        As for ``AudioReader``: what it would refuse is left out.
    speaker_level : int or None
        Speakers are the folders so many levels below the source; 0: there are none. None: those of
        the first level with at least 5 folders, whose names say something else than
        ``train-clean-100``, ``dev``, ``wav`` or ``v1.0`` do.
    seed : int
        Another seed, another part for validation.
    num_workers : int or None
        How many threads read. None: 16.

    Returns
    -------
    None

    Raises
    ------
    ValueError
        Where a manifest is not clear, more than half of the files or clips cannot be used, nothing
        is left, there is only one file and no ``valid_source``, or ``manifest_folder`` has
        manifests of another corpus.

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
    mix_down = as_mix_down(mix_down)
    folder = os.path.abspath(manifest_folder)
    paths = {"train": source, "valid": valid_source}
    paths = {part: os.path.abspath(path) for part, path in paths.items() if path is not None}
    if speaker_level is not None and not any(map(os.path.isdir, paths.values())):
        raise ValueError(
            f"speaker_level is for folders, got speaker_level={speaker_level} where source is "
            f"{source}; set speaker_level: null, and name speakers in the manifest"
        )
    sources = {part: find_clips(path, speaker_level) for part, path in paths.items()}
    reading = {"mix_down": mix_down, "sample_rate": sample_rate, "resample": resample}
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
    # Manifests mean that the preparation is complete: they are removed first, written last.
    os.makedirs(folder, exist_ok=True)
    for part in SPLITS:
        if os.path.exists(path := os.path.join(folder, f"{part}.csv")):
            os.remove(path)
    write_whole(os.path.join(folder, SETTINGS), json.dumps(settings, indent=2) + "\n")
    clips = {part: found.clips for part, found in sources.items()}
    wavs = dict.fromkeys(clip.wav for part in clips for clip in clips[part])
    headers = read_headers(list(wavs), num_workers)
    left_out = LeftOut(folder)
    for part, path in paths.items():
        clips[part] = _usable(path, sources[part], headers, reading, min_seconds, left_out)
    if "valid" in clips:
        num_clips = len(clips["train"])
        clips["train"] = without_overlap(clips["train"], clips["valid"])
        logger.info(
            f"{num_clips - len(clips['train'])} of {num_clips} clips of source share audio with "
            f"valid_source and are not trained on"
        )
    for part, path in paths.items():
        clips[part] = _cut_all(path, clips[part], headers, min_seconds, max_seconds)
    if "valid" not in clips:
        clips["train"], clips["valid"] = divide(clips["train"], valid_share, seed, source)
    more = dict.fromkeys(column for part in paths for column in clips[part][0].more)
    for part in SPLITS:
        rows = [
            [*clip.row, *(clip.more.get(column, "") for column in more)] for clip in clips[part]
        ]
        write_whole(os.path.join(folder, f"{part}.csv"), to_csv([[*COLUMNS, *more], *rows]))
        hours = sum(clip.seconds for clip in clips[part]) / 3600
        logger.info(f"{part}.csv: {len(rows)} clips, {hours:.3f} hours")


def _check(source, valid_share, min_seconds, max_seconds, speaker_level, seed):
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


def _is_ready(folder, settings):
    """Whether the manifests were made with these settings; those of others are not touched."""
    there = [os.path.exists(os.path.join(folder, f"{part}.csv")) for part in SPLITS]
    try:
        with open(os.path.join(folder, SETTINGS), encoding="utf-8") as file:
            return json.load(file) == settings and all(there)
    except FileNotFoundError:
        if any(there):
            raise ValueError(
                f"manifest_folder has manifests of something else, got manifest_folder={folder!r}; "
                f"choose another manifest_folder:, or move them away"
            ) from None
    except json.JSONDecodeError:
        pass  # the machine failed while it was written
    return False


def _usable(path, found, headers, reading, min_seconds, left_out):
    """Those clips of a source that can be used, placed in their files."""
    if found.remark:
        logger.info(f"{path}: {found.remark}")
    if found.warning:
        logger.warning(f"{path}: {found.warning}; listed in {left_out.name}")
    wavs = dict.fromkeys(clip.wav for clip in found.clips)
    bad = [(wav, str(headers[wav])) for wav in wavs if isinstance(headers[wav], BadAudio)]
    left_out.add([*found.left_out.items(), *bad])
    left_out.refuse_half(
        bad,
        len(wavs),
        f"files in {path}",
        "convert them to FLAC, or mend the paths: they are relative to the manifest, and "
        "$data_root is its folder",
    )
    check_units(path, found.clips, headers, min_seconds)
    placed, bad = place_clips(found.clips, headers, **reading)
    left_out.add((clip.wav, reason) for clip, reason in bad)
    left_out.refuse_half(
        [(clip.wav, reason) for clip, reason in bad],
        len(bad) + len(placed),
        f"clips in {path}",
        "mend them, or take them out",
    )
    return placed


def _cut_all(path, placed, headers, min_seconds, max_seconds):
    """What is left of the clips of a source, none of it too long or too short."""
    pieces = [
        cut(clip, start, stop, headers[clip.wav].sample_rate, max_seconds)
        for clip, start, stop in placed
    ]
    kept = [piece for parts in pieces for piece in parts if piece.seconds >= min_seconds]
    make_unique(kept)
    long = [len(parts) for parts in pieces if len(parts) > 1]
    hours = sum(piece.seconds for parts in pieces for piece in parts) / 3600
    speakers = {clip.row[-1] for clip, *_ in placed} - {""}
    text = (
        f"{path}: {len({clip.wav for clip, *_ in placed})} files, {len(placed)} clips, {hours:.3f} "
        f"hours, {len(speakers) or 'no known'} speakers; {len(long)} clips longer than "
        f"{max_seconds:g} s, cut into {sum(long)}; {sum(map(len, pieces)) - len(kept)} shorter "
        f"than {min_seconds:g} s, left out"
    )
    if not kept:
        raise ValueError(
            f"{text}: nothing is left; set min_seconds: to less"
            if placed
            else f"{path}: all of its clips share audio with valid_source; set source: to more"
        )
    logger.info(text)
    return kept
