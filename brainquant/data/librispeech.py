"""LibriSpeech (https://www.openslr.org/12): manifests of the unpacked corpus."""

import csv
import functools
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence

from speechbrain.utils.logger import get_logger

from .audio import BadAudio
from .audio.headers import read_header
from .prepare import in_threads, to_csv, write_whole
from .tables import first_few

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


def prepare_librispeech(
    data_folder: str | os.PathLike,
    manifest_folder: str | os.PathLike,
    *,
    train_splits: Sequence[str],
    valid_splits: Sequence[str],
    test_splits: Sequence[str] = (),
    num_workers: int | None = None,
) -> None:
    """Writes SpeechBrain manifests of LibriSpeech.

    After an interruption, call it again: it continues. A split whose manifest has all utterances is
    not read again, wherever ``data_folder`` has moved to. Of a split that was unpacked in part,
    only new files are read. To read a split again, delete its manifest.

    Arguments
    ---------
    data_folder : str or os.PathLike
        The folder that contains ``train-clean-100`` and so on. Nothing is written there.
    manifest_folder : str or os.PathLike
        Where to write ``<split>.csv`` for each split, and ``train.csv`` and ``valid.csv``, with the
        columns ID, duration (seconds), wav, spk_id and wrd. Paths begin with ``$data_root``, for
        ``data_folder``.
    train_splits : list of str
        The splits in ``train.csv``, such as ``[train-clean-100, train-clean-360]``.
    valid_splits : list of str
        The splits in ``valid.csv``, such as ``[dev-clean]``.
    test_splits : list of str
        Further splits, which get only their own manifests.
    num_workers : int or None
        The number of threads. None: 16.

    Raises
    ------
    ValueError
        If ``data_folder`` lacks a split, some of its files cannot be read or have no transcript, or
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
    chosen = dict(train_splits=train_splits, valid_splits=valid_splits, test_splits=test_splits)
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


def _check_choice(chosen: Mapping[str, Sequence[str]]) -> None:
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


def _check_split(data_folder: str, key: str, split: str) -> None:
    """Refuses a data_folder that lacks a split. The error says where it is, or what is there."""
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


def _prepare_split(folder: str, manifest: str, num_workers: int | None) -> str:
    """Writes a split's manifest if it is not complete, and returns its text."""
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
            # SpeechBrain's librispeech_prepare.py writes <speaker>-<chapter> as spk_id: this gives
            # one speaker several IDs.
            rows += [(name, s, f"{wav}/{name}.flac", speaker, words) for name, s, words in found]
            faults += bad
    if faults:
        raise ValueError(
            f"{len(faults)} files of {split} are not complete: {first_few(faults)}; download "
            f"{split} again and unpack it"
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
                f"{split} has {len(rows)} of its {complete} utterances in {folder}: unless you "
                f"want this, download it again and unpack it"
            )
    if os.path.exists(manifest + ".part"):  # unless another run has removed it
        os.remove(manifest + ".part")
    return text


def _read_chapter(
    folder: str, known: Mapping[str, tuple[float, str]], names: tuple[str, str]
) -> tuple[list[tuple[str, float, str]], list[str]]:
    """The utterances (ID, seconds, words) of a speaker's chapter, and faults.

    Only utterances that are not ``known`` are read.
    """
    chapter = os.path.join(folder, *names)
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
            texts = _read_transcripts(os.path.join(chapter, "-".join(names) + ".trans.txt"))
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


def _read_transcripts(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip().partition(" ") for line in file]
    except FileNotFoundError:
        return {}
    return {name: words.strip() for name, _, words in lines if words.strip()}


def _read_part(path: str) -> dict[str, tuple[float, str]]:
    """The utterances that an interrupted preparation has read. An unfinished line is not JSON."""
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


def _read_manifest(path: str) -> str:
    """The text of a manifest that this preparation has written, or "" if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        return ""
    if not re.match(f"{to_csv([COLUMNS])}.*,\\$data_root/", text):
        raise ValueError(
            f"manifest_folder has a manifest of another corpus, {path}; choose another "
            f"manifest_folder:, or move it away"
        )
    return text


def _folders(parent: str) -> list[str]:
    try:
        with os.scandir(parent) as entries:
            return sorted(
                entry.name for entry in entries if entry.is_dir() and entry.name[0] != "."
            )
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ValueError(
            f"the folder {parent} cannot be listed ({error.strerror}); change its permissions"
        ) from None
