"""LibriSpeech: manifests of what is unpacked, https://www.openslr.org/12."""

import csv
import functools
import io
import json
import math
import os
import re

from speechbrain.utils.logger import get_logger

from .audio.headers import BadAudio, read_header
from .prepare import in_threads, to_csv, write_whole

logger = get_logger(__name__)

COLUMNS = ("ID", "duration", "wav", "spk_id", "wrd")
UTTERANCES = {
    "train-clean-100": 28539,
    "train-clean-360": 104014,
    "train-other-500": 148688,
    "dev-clean": 2703,
    "dev-other": 2864,
    "test-clean": 2620,
    "test-other": 2939,
}
NUM_SHOWN = 3  # files in an error


def prepare_librispeech(
    data_folder,
    manifest_folder,
    *,
    train_splits,
    valid_splits,
    test_splits=(),
    num_workers=None,
):
    """Writes SpeechBrain manifests of LibriSpeech.

    Interrupted and called again, it goes on. A split whose manifest has all of its utterances is
    not looked at again, wherever ``data_folder`` has moved to; of one that was unpacked in part,
    only the files are read that are new. To read a split anew, delete its manifest.

    Arguments
    ---------
    data_folder : str
        The folder that has ``train-clean-100`` and so on in it. Nothing is written there.
    manifest_folder : str
        Where to write: ``<split>.csv`` for each split, and ``train.csv`` and ``valid.csv``, with
        the columns ID, duration (seconds), wav, spk_id and wrd. Paths begin with ``$data_root``,
        for ``data_folder``.
    train_splits : list of str
        What ``train.csv`` has, such as ``[train-clean-100, train-clean-360]``.
    valid_splits : list of str
        What ``valid.csv`` has, such as ``[dev-clean]``.
    test_splits : list of str
        Further splits, which get their own manifests only.
    num_workers : int or None
        How many threads read. None: 16.

    Returns
    -------
    None

    Raises
    ------
    ValueError
        Where ``data_folder`` lacks a split, files of it cannot be read or have no transcript, or
        ``manifest_folder`` has manifests of another corpus.

    Example
    -------
    >>> import numpy, soundfile
    >>> folder = getfixture("tmp_path")
    >>> for split, chapter in (("train-clean-100", "19-198"), ("dev-clean", "84-121123")):
    ...     path = folder.joinpath("LibriSpeech", split, *chapter.split("-"))
    ...     path.mkdir(parents=True)
    ...     soundfile.write(path / f"{chapter}-0000.flac", numpy.zeros(20000), 16000)
    ...     _ = (path / f"{chapter}.trans.txt").write_text(f"{chapter}-0000 GO DO YOU HEAR\\n")
    >>> prepare_librispeech(
    ...     folder / "LibriSpeech",
    ...     folder / "manifests",
    ...     train_splits=["train-clean-100"],
    ...     valid_splits=["dev-clean"],
    ... )
    >>> print((folder / "manifests" / "valid.csv").read_text().splitlines()[1])
    84-121123-0000,1.25,$data_root/dev-clean/84/121123/84-121123-0000.flac,84,GO DO YOU HEAR
    """
    chosen = {
        "train_splits": train_splits,
        "valid_splits": valid_splits,
        "test_splits": test_splits,
    }
    _check_choice(chosen)
    data_folder, manifest_folder = os.path.abspath(data_folder), os.path.abspath(manifest_folder)
    for key, splits in chosen.items():
        for split in splits:
            _check_split(data_folder, key, split)
    joined = {
        os.path.join(manifest_folder, "train.csv"): train_splits,
        os.path.join(manifest_folder, "valid.csv"): valid_splits,
    }
    found = {path: _read_manifest(path) for path in joined}
    os.makedirs(manifest_folder, exist_ok=True)
    tables = {
        split: _prepare_split(
            os.path.join(data_folder, split),
            os.path.join(manifest_folder, f"{split}.csv"),
            num_workers,
        )
        for split in dict.fromkeys([*train_splits, *valid_splits, *test_splits])
    }
    for path, splits in joined.items():
        header = to_csv([COLUMNS])
        text = header + "".join(tables[split].removeprefix(header) for split in splits)
        if found[path] != text:
            write_whole(path, text)
    logger.info(f"LibriSpeech is ready in {manifest_folder}")


def _check_choice(chosen):
    for key, splits in chosen.items():
        if isinstance(splits, str) or not all(isinstance(split, str) for split in splits):
            raise ValueError(
                f"{key} must be a list of names, got {key}={splits!r}; set {key}: [dev-clean]"
            )
        if not splits and key != "test_splits":
            raise ValueError(
                f"{key} must have at least one split, got none; set {key}: in your YAML"
            )
        if len(set(splits)) < len(splits):
            raise ValueError(f"{key} has a split twice, got {key}={list(splits)}; take it out")
    if both := sorted({*chosen["train_splits"]} & {*chosen["valid_splits"]}):
        raise ValueError(f"{both[0]} is in train_splits and in valid_splits; take it out of one")


def _check_split(data_folder, key, split):
    """Refuses a data_folder that lacks a split, and says where it is or what there is."""
    if os.path.isdir(os.path.join(data_folder, split)):
        return
    folders = _folders(data_folder)
    above = os.path.dirname(data_folder)
    nearby = [os.path.join(data_folder, name) for name in folders] + [above, os.path.dirname(above)]
    for folder in nearby:
        if os.path.isdir(os.path.join(folder, split)):
            raise ValueError(
                f"data_folder must be the folder that has {split} in it, got "
                f"data_folder={data_folder!r}; set data_folder: {folder}"
            )
    if there := [name for name in UTTERANCES if name in folders] or folders:
        raise ValueError(
            f"{key} has {split!r}, but the data_folder {data_folder} has {', '.join(there[:7])}; "
            f"set {key}: to what is there, or download and unpack {split}"
        )
    raise ValueError(
        f"data_folder must be the folder that has {split} in it, but there are no folders in "
        f"data_folder={data_folder!r}; set data_folder: to where LibriSpeech is unpacked"
    )


def _prepare_split(folder, manifest, num_workers):
    """The text of a split's manifest, which is written first where it is not all there."""
    split, before = os.path.basename(folder), _read_manifest(manifest)
    complete = UTTERANCES.get(split, math.inf)
    if before.count("\n") > complete:
        return before
    lines = csv.DictReader(io.StringIO(before, newline=""))
    known = {row["ID"]: (float(row["duration"]), row["wrd"]) for row in lines}
    known.update(_read_part(manifest + ".part"))
    rows, faults = [], []
    chapters = [
        (speaker, chapter)
        for speaker in _folders(folder)
        for chapter in _folders(os.path.join(folder, speaker))
    ]
    read = functools.partial(_read_chapter, folder, known)
    with open(manifest + ".part", "a", encoding="utf-8") as part:
        results = in_threads(read, chapters, num_workers=num_workers, unit="chapter")
        for (found, bad), (speaker, chapter) in zip(results, chapters):
            part.writelines(json.dumps(row) + "\n" for row in found if row[0] not in known)
            part.flush()
            wav = f"$data_root/{split}/{speaker}/{chapter}"
            # SpeechBrain's librispeech_prepare.py writes <speaker>-<chapter> as spk_id, which
            # gives one speaker several of them.
            rows += [(name, s, f"{wav}/{name}.flac", speaker, words) for name, s, words in found]
            faults += bad
    if faults:
        raise ValueError(
            f"{len(faults)} files of {split} are not whole: {'; '.join(faults[:NUM_SHOWN])}"
            f"{'; ...' if len(faults) > NUM_SHOWN else ''}; download {split} again and unpack it"
        )
    if not rows:
        raise ValueError(
            f"{folder} has no files <speaker>/<chapter>/*.flac; download {split} and unpack it"
        )
    text = to_csv([COLUMNS, *rows])
    if text != before:
        write_whole(manifest, text)
        hours = sum(row[1] for row in rows) / 3600
        speakers = len({row[3] for row in rows})
        logger.info(f"{split}: {len(rows)} utterances, {hours:.2f} hours, {speakers} speakers")
        if len(rows) < UTTERANCES.get(split, 0):
            logger.warning(
                f"{split} has {len(rows)} of its {complete} utterances in {folder}: unless that is "
                f"wanted, download it again and unpack it"
            )
    if os.path.exists(manifest + ".part"):  # another run may have been quicker
        os.remove(manifest + ".part")
    return text


def _read_chapter(folder, known, place):
    """Utterances of a chapter, [(ID, seconds, words)], and faults; only what is new is read."""
    chapter = os.path.join(folder, *place)
    found, faults, texts = [], [], None
    try:
        files = sorted(os.listdir(chapter))
    except OSError as error:
        return [], [f"{chapter} cannot be listed ({error.strerror})"]
    for file in files:
        name, ending = os.path.splitext(file)
        if ending != ".flac" or name.startswith("."):
            continue
        if name in known:
            found.append((name, *known[name]))
            continue
        path = os.path.join(chapter, file)
        if texts is None:
            texts = _read_transcripts(os.path.join(chapter, "-".join(place) + ".trans.txt"))
        try:
            num_samples, rate = read_header(path)[:2]
        except BadAudio as error:
            faults.append(f"{path} {error}")
            continue
        if name in texts:
            found.append((name, num_samples / rate, texts[name]))
        else:
            faults.append(f"{path} has no transcript")
    return found, faults


def _read_transcripts(path):
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip().partition(" ") for line in file]
    except FileNotFoundError:
        return {}
    return {name: words.strip() for name, _, words in lines if words.strip()}


def _read_part(path):
    """What an interrupted preparation has read; a line that it did not finish is no JSON."""
    known = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    name, seconds, words = json.loads(line)
                except ValueError:
                    continue
                known[name] = seconds, words
    except FileNotFoundError:
        pass
    return known


def _read_manifest(path):
    """The text of a manifest that this preparation has written, "" where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        return ""
    if not re.match(f"{to_csv([COLUMNS])}.*,\\$data_root/", text):
        raise ValueError(
            f"manifest_folder has a manifest of something else, {path}; choose another "
            f"manifest_folder:, or move it away"
        )
    return text


def _folders(parent):
    try:
        with os.scandir(parent) as entries:
            return sorted(
                entry.name for entry in entries if entry.is_dir() and entry.name[0] != "."
            )
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ValueError(
            f"the folder {parent} cannot be listed ({error.strerror}); allow it for its user"
        ) from None
