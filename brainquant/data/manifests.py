"""Manifests, checked before anything is trained, become datasets of audio."""

import functools
import math
import os
import re

from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.logger import get_logger

from .tables import is_json, read_table

logger = get_logger(__name__)

COLUMNS = ("ID", "duration", "wav")
SEGMENT = ("start", "stop")  # samples: the clip is a part of its file
MEMBER = ("offset", "size")  # bytes: the clip is a file inside a tar
WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
NUM_SHOWN = 3  # bad rows in an error


def load_dataset(
    manifest,
    data_folder,
    min_seconds=0.0,
    max_seconds=math.inf,
    *,
    reader,
    columns=(),
    remedy="change min_seconds: and max_seconds:",
):
    """Audio of a manifest, after a check of the manifest itself.

    Arguments
    ---------
    manifest : str
        CSV or JSON file, see ``read_manifest``.
    data_folder : str
        What ``$data_root`` in the manifest stands for.
    min_seconds : float
        Shorter clips are left out.
    max_seconds : float
        Longer clips are left out.
    reader : callable
        Makes a waveform of a path and a duration and, where the manifest has these columns, of
        ``start``, ``stop``, ``offset`` and ``size``: a ``brainquant.data.audio.AudioReader``.
    columns : sequence of str
        Further columns of the manifest to be items, as text.
    remedy : str
        What to do where no clip is left, for the error.

    Returns
    -------
    dataset : DynamicItemDataset
        Items ``id``, ``sig`` (the waveform, one-dimensional), ``duration`` and the ``columns``.

    Raises
    ------
    ValueError
        Where the manifest is not right, see ``read_manifest``, lacks one of the columns, or no clip
        is left.
    """
    rows = read_manifest(manifest, data_folder)
    found = next(iter(rows.values()))
    _check_columns(manifest, columns, found)
    seconds = [row["duration"] for row in rows.values()]
    short = sum(duration < min_seconds for duration in seconds)
    long = sum(duration > max_seconds for duration in seconds)
    if short + long == len(rows):
        raise ValueError(
            f"{manifest}: none of its {len(rows)} clips is between {min_seconds} and {max_seconds} "
            f"seconds long; {remedy} in your YAML"
        )
    if short + long:
        logger.info(
            f"{manifest}: {short + long} of {len(rows)} clips left out, {short} below min_seconds: "
            f"{min_seconds:g}, {long} above max_seconds: {max_seconds:g}"
        )
    parts = [column for column in (*SEGMENT, *MEMBER) if column in found]
    dataset = DynamicItemDataset({
        name: {column: row[column] for column in ("wav", "duration", *parts, *columns)}
        for name, row in rows.items()
        if min_seconds <= row["duration"] <= max_seconds
    })  # fmt: skip
    read = functools.partial(_read_clip, reader, parts)
    dataset.add_dynamic_item(read, takes=["wav", "duration", *parts], provides="sig")
    dataset.set_output_keys(["id", "sig", "duration", *columns])
    return dataset


def _read_clip(reader, parts, path, duration, *values):
    return reader(path, duration, **dict(zip(parts, values)))


def read_manifest(manifest, data_folder):
    """Rows of a manifest whose audio files are all there.

    SpeechBrain 1.1.2 looks for the column ID and for doubled IDs only; what else is wrong
    shows in the middle of the training, or never.

    Arguments
    ---------
    manifest : str
        CSV file with the columns ID, duration (seconds) and wav (a path), or a JSON file with the
        same by ID, where its name ends with ``.json``. Further columns that are understood, and
        whose cells may be empty: start and stop (samples of the file: the clip is that part of it);
        offset and size (bytes: wav is an uncompressed tar, and the clip the file at that place).
    data_folder : str
        What ``$data_root`` in the column wav stands for; in JSON, ``{data_root}``.

    Returns
    -------
    rows : dict
        By ID: ``wav`` (a path), ``duration`` (a float), ``start``, ``stop``, ``offset`` and
        ``size`` where the manifest has them (int or None), and the other columns as text.

    Raises
    ------
    ValueError
        Which names the lines, IDs and columns that are not right.
    """
    rows = read_rows(manifest)
    data_root = "{data_root}" if is_json(manifest) else "$data_root"
    for row in rows.values():
        row["wav"] = row["wav"].replace(data_root, str(data_folder))
    if missing := _missing_files(row["wav"] for row in rows.values()):
        bad = [(place, row) for place, row in rows.items() if os.path.split(row["wav"]) in missing]
        place, row = bad[0]
        raise ValueError(
            f"{manifest}: {len(bad)} of its {len(rows)} audio files do not exist, the first is "
            f"{row['wav']} in {place}; set data_folder: to the folder that "
            f"{data_root} stands for, or take the rows out"
        )
    return {row.pop("ID"): row for row in rows.values()}


def read_rows(manifest):
    """Rows of a manifest by their place in it, whether or not the files are there.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.csv"
    >>> _ = path.write_text("ID, duration, wav\\na, 1.5, $data_root/a.wav\\n")
    >>> read_rows(path)
    {"line 2, ID 'a'": {'ID': 'a', 'duration': 1.5, 'wav': '$data_root/a.wav'}}
    """
    columns, table = read_table(manifest)
    _check_columns(manifest, COLUMNS, columns)
    if not table:
        raise ValueError(f"{manifest} has no rows: add a line for each audio file")
    rows, faults = {}, []
    for place, row, fault in table:
        if fault := fault or _fault(row):
            faults.append(f"{place}: {fault}")
            continue
        row["duration"] = float(row["duration"])
        for column in (*SEGMENT, *MEMBER):
            if column in row:
                row[column] = int(row[column]) if row[column].strip() else None
        rows[place] = row
    if faults:
        raise ValueError(
            f"{manifest}: {len(faults)} of {len(table)} rows are not right; "
            f"{'; '.join(faults[:NUM_SHOWN])}{'; ...' if len(faults) > NUM_SHOWN else ''}; "
            f"mend them or take them out"
        )
    return rows


def _check_columns(manifest, wanted, columns):
    for column in wanted:
        if column not in columns:
            raise ValueError(
                f"{manifest} lacks the column {column!r}, it has {', '.join(columns) or 'none'}; "
                f"add the column"
            )


def _fault(row):
    """What is wrong with the values of a row, or None."""
    for column in COLUMNS:
        if not row[column].strip():
            return f"the column {column} is empty"
    try:
        seconds = float(row["duration"])
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        return f"the column duration has {row['duration']!r}, not a positive number of seconds"
    for columns in (SEGMENT, MEMBER):
        texts = [row.get(column, "").strip() for column in columns]
        if not any(texts):
            continue
        for column, text in zip(columns, texts):
            if not text:
                return f"the columns {' and '.join(columns)} must be both filled or both empty"
            if not WHOLE_NUMBER.fullmatch(text):
                return f"the column {column} has {text!r}, not a whole number from 0 up"
        first, last = map(int, texts)
        if columns == SEGMENT and first >= last:
            return f"the column stop has '{last}', which is not after the start, {first}"
        if columns == MEMBER and last == 0:
            return "the column size has '0': a file of no bytes"
    return None


def _missing_files(paths):
    """Folders and names that are no files; each folder is listed once, for network disks."""
    by_folder = {}
    for path in paths:
        folder, name = os.path.split(path)
        by_folder.setdefault(folder, set()).add(name)
    return {
        (folder, name)
        for folder, names in by_folder.items()
        for name in names - _files_among(names, folder)
    }


def _files_among(names, folder):
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.name in names and entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise ValueError(
            f"the folder {folder} cannot be listed ({error.strerror}); allow it for its user"
        ) from None
