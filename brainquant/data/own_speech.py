"""Speech of one's own: manifests of a folder of audio, or of a list of files, as it is."""

import collections
import dataclasses
import hashlib
import json
import os

from speechbrain.utils.logger import get_logger

from .headers import BadAudio, read_header
from .own_clips import COLUMNS, find_clips
from .prepare import in_threads, to_csv, write_whole

logger = get_logger(__name__)

VERSION = 1  # of what the manifests hold: a higher number makes existing ones anew
SETTINGS = "own_speech.json"
LEFT_OUT = "left_out.csv"
SPLITS = ("valid", "train")
NUM_SHOWN = 3  # files in a message


def prepare_own_speech(
    source,
    manifest_folder,
    *,
    valid_source=None,
    valid_share=0.05,
    max_seconds=20.0,
    min_seconds=1.0,
    seed=1234,
    num_workers=None,
):
    """Writes SpeechBrain manifests of audio in any format that soundfile reads, at any rate.

    Called again with the same settings it returns at once, unless the source has changed: files of
    a folder were added, removed, or have another size; or the bytes of the manifest have changed,
    whatever became of its audio files.

    Arguments
    ---------
    source : str
        A folder, which is searched with all folders below it, hidden ones left out; or a CSV or
        JSON manifest. That needs a column ``wav`` only, of paths that are relative to the manifest
        or begin with ``$data_root`` for its folder (in JSON, ``{data_root}``); ``ID``, ``spk_id``,
        ``start`` and ``stop`` (samples, at the file's own rate) are used where they are there,
        further columns are kept (a segment has those of its clip, a text too), and ``duration`` is
        measured anew.
    manifest_folder : str
        Where to write ``train.csv`` and ``valid.csv``, with the columns ID, duration (seconds), wav
        (absolute paths: ``data_folder:`` in the YAML may be anything), start, stop, spk_id and
        those of the manifest; and ``left_out.csv``: which files cannot be read, and why. Headers
        are read only: a file that is broken further on is left out in training.
    valid_source : str or None
        What ``valid.csv`` is made of, as ``source``; what is in both is taken out of training.
        None: a part of ``source``, of whole speakers where ``spk_id`` names at least two, else of
        whole files. In a folder with at least 5 subfolders these are taken for speakers.
    valid_share : float
        The share of speakers or files for validation, at least one. It goes by their names:
        those that are added move no others.
    max_seconds : float
        Longer clips are cut into equal segments, by the columns start and stop.
    min_seconds : float
        Shorter clips and segments are left out.
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
        Where more than half of the files cannot be read, nothing is left, there is only one file
        and no ``valid_source``, or ``manifest_folder`` has manifests of another corpus.

    Example
    -------
    >>> import numpy, soundfile
    >>> folder = getfixture("tmp_path")
    >>> for name, seconds in (("long.ogg", 3), ("short.flac", 2)):
    ...     soundfile.write(folder / name, numpy.zeros(22050 * seconds), 22050)
    >>> prepare_own_speech(folder, folder / "manifests", max_seconds=2, seed=1)
    >>> print((folder / "manifests" / "train.csv").read_text().replace(str(folder), "..."), end="")
    ID,duration,wav,start,stop,spk_id
    long-000,1.5,.../long.ogg,0,33075,
    long-001,1.5,.../long.ogg,33075,66150,
    """
    _check(source, valid_share, min_seconds, max_seconds, seed)
    folder = os.path.abspath(manifest_folder)
    paths = {"train": source, "valid": valid_source}
    paths = {split: os.path.abspath(path) for split, path in paths.items() if path is not None}
    sources = {split: find_clips(path) for split, path in paths.items()}
    settings = {
        "corpus": "OwnSpeech",
        "version": VERSION,
        "sources": paths,
        "states": {split: found.state for split, found in sources.items()},
        "valid_share": valid_share,
        "max_seconds": max_seconds,
        "min_seconds": min_seconds,
        "seed": seed,
    }
    if _is_ready(folder, settings):
        logger.info(f"OwnSpeech is ready in {folder}")
        return
    # The manifests say that all is there: first to go, last to come.
    os.makedirs(folder, exist_ok=True)
    for split in SPLITS:
        if os.path.exists(path := os.path.join(folder, f"{split}.csv")):
            os.remove(path)
    write_whole(os.path.join(folder, SETTINGS), json.dumps(settings, indent=2) + "\n")

    clips = {split: found.clips for split, found in sources.items()}
    if "valid" in clips:
        taken = {_place(clip) for clip in clips["valid"]}
        clips["train"] = [clip for clip in clips["train"] if _place(clip) not in taken]
    left_out = [("wav", "reason")]
    for split, path in paths.items():
        headers = _read_headers(clips[split], num_workers)
        bad = {
            _show(wav): str(header)
            for wav, header in headers.items()
            if isinstance(header, BadAudio)
        }
        left_out += bad.items()
        write_whole(os.path.join(folder, LEFT_OUT), to_csv(left_out))
        _check_bad(path, bad, len(headers))
        clips[split] = _cut_all(clips[split], headers, min_seconds, max_seconds, path)
        if sources[split].remark:
            logger.info(f"{path}: {sources[split].remark}")
    if "valid" not in clips:
        clips["train"], clips["valid"] = _split(clips["train"], valid_share, seed, source)
    more = dict.fromkeys(column for split in paths for column in clips[split][0].more)
    for split in SPLITS:
        rows = [
            [*clip.row, *(clip.more.get(column, "") for column in more)] for clip in clips[split]
        ]
        write_whole(os.path.join(folder, f"{split}.csv"), to_csv([[*COLUMNS, *more], *rows]))
        hours = sum(clip.seconds for clip in clips[split]) / 3600
        logger.info(f"{split}.csv: {len(rows)} clips, {hours:.3f} hours")


def _check(source, valid_share, min_seconds, max_seconds, seed):
    if not source:
        raise ValueError(
            f"source must be a folder or a manifest, got source={source!r}; set source:"
        )
    if not 0 < valid_share < 1:
        raise ValueError(
            f"valid_share must be between 0 and 1, got valid_share={valid_share}; set it to 0.05"
        )
    if not 0 <= min_seconds < max_seconds < float("inf"):
        raise ValueError(
            f"min_seconds must be from 0 up and below max_seconds, got min_seconds={min_seconds}, "
            f"max_seconds={max_seconds}; set them to 1.0 and 20.0"
        )
    if not isinstance(seed, int):
        raise ValueError(f"seed must be a whole number, got seed={seed!r}; set seed: 1234")


def _is_ready(folder, settings):
    """Whether the manifests were made with these settings; those of others are not touched."""
    there = [os.path.exists(os.path.join(folder, f"{split}.csv")) for split in SPLITS]
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
        pass  # power went while it was written
    return False


def _place(clip):
    return clip.wav, clip.start, clip.stop


def _read_headers(clips, num_workers):
    """A ``Header`` by path, or what is wrong with the file as a ``BadAudio``."""
    wavs = list(dict.fromkeys(clip.wav for clip in clips))
    return dict(zip(wavs, in_threads(_read_one, wavs, num_workers=num_workers, unit="file")))


def _read_one(wav):
    try:
        wav.encode()
        if "\n" in wav or "\r" in wav:
            raise BadAudio("has a line break in its name")
        return read_header(wav)
    except UnicodeEncodeError:  # a manifest could not hold it
        return BadAudio("has a name that is not UTF-8")
    except BadAudio as error:
        return error


def _show(wav):
    """A path on one line, of characters that can be written."""
    wav = wav.replace("\r", "\\r").replace("\n", "\\n")
    return wav.encode("utf-8", "backslashreplace").decode()


def _check_bad(path, bad, num_files):
    if not bad:
        return
    text = (
        f"{len(bad)} of {num_files} files in {path} cannot be used: "
        f"{'; '.join(f'{wav} {reason}' for wav, reason in list(bad.items())[:NUM_SHOWN])}"
        f"{'; ...' if len(bad) > NUM_SHOWN else ''}"
    )
    if 2 * len(bad) > num_files:
        raise ValueError(
            f"{text}; convert them to FLAC, or mend the paths: they are relative to the manifest, "
            f"and $data_root is its folder"
        )
    logger.warning(f"{text}; they are left out and listed in {LEFT_OUT}")


def _cut_all(clips, headers, min_seconds, max_seconds, path):
    """What is left of the clips of a source, none of it too long or too short."""
    clips = [(clip, headers[clip.wav]) for clip in clips]
    clips = [(clip, header) for clip, header in clips if not isinstance(header, BadAudio)]
    pieces = [_cut(clip, *header[:2], max_seconds) for clip, header in clips]
    kept = [piece for cut in pieces for piece in cut if 0 < piece.seconds >= min_seconds]
    _make_unique(kept)
    long = [len(cut) for cut in pieces if len(cut) > 1]
    hours = sum(piece.seconds for cut in pieces for piece in cut) / 3600
    speakers = {clip.speaker for clip, _ in clips} - {""}
    text = (
        f"{path}: {len({clip.wav for clip, _ in clips})} files, {len(clips)} clips, {hours:.3f} "
        f"hours, {len(speakers) or 'no known'} speakers; {len(long)} clips longer than "
        f"{max_seconds:g} s, cut into {sum(long)}; {sum(map(len, pieces)) - len(kept)} shorter "
        f"than {min_seconds:g} s, left out"
    )
    if not kept:
        raise ValueError(f"{text}: nothing is left; set min_seconds: to less")
    logger.info(text)
    return kept


def _cut(clip, num_samples, rate, max_seconds):
    """Equal parts of a clip, as few as possible; of one that is short enough, itself."""
    start, stop = (0, num_samples) if clip.start is None else (clip.start, clip.stop)
    length = min(stop, num_samples) - start
    num_parts = max(1, -(-length // int(max_seconds * rate)))
    if num_parts == 1:
        return [dataclasses.replace(clip, seconds=length / rate)]
    bounds = [start + length * k // num_parts for k in range(num_parts + 1)]
    return [
        dataclasses.replace(
            clip, id=f"{clip.id}-{k:03d}", start=first, stop=last, seconds=(last - first) / rate
        )
        for k, (first, last) in enumerate(zip(bounds, bounds[1:]))
    ]


def _make_unique(clips):
    """Files such as a.wav and a.mp3 would have one ID: theirs get a sign of the whole name."""
    counts = collections.Counter(clip.id for clip in clips)
    for clip in clips:
        if counts[clip.id] > 1:
            clip.id += f"-{_digest(clip.name, clip.start, clip.stop).hex()[:8]}"


def _split(clips, valid_share, seed, source):
    """Parts for training and validation, of whole speakers or whole files."""
    for unit, group in (
        ("speakers", lambda clip: clip.speaker or clip.name),
        ("files", lambda clip: clip.name),
    ):
        groups = {group(clip) for clip in clips}
        if len(groups) > 1 and (unit == "files" or any(clip.speaker for clip in clips)):
            break
    else:
        raise ValueError(
            f"source must have at least two files to be split, {source} has one; set valid_source: "
            f"to audio for validation"
        )
    # Each by its own name: the others stay where they are when some are added.
    draws = {name: int.from_bytes(_digest(seed, name), "big") / 2**64 for name in groups}
    first, *_, last = sorted(draws, key=draws.get)
    valid = {name for name in groups if draws[name] < valid_share} - {last} | {first}
    logger.info(f"validation takes {len(valid)} of {len(groups)} {unit}")
    return (
        [clip for clip in clips if group(clip) not in valid],
        [clip for clip in clips if group(clip) in valid],
    )


def _digest(*values):
    text = "/".join(map(str, values))
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
