"""Manifests, checked before anything is trained, become datasets of audio."""

import csv
import math
import os

from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

COLUMNS = ("ID", "duration", "wav")
NUM_SHOWN = 3  # bad rows in an error


def load_dataset(manifest, data_folder, min_seconds=0.0, max_seconds=math.inf, *, reader):
    """Audio of a manifest, after a check of the manifest itself.

    Arguments
    ---------
    manifest : str
        CSV file with the columns ID, duration (seconds) and wav.
    data_folder : str
        What ``$data_root`` in the manifest stands for.
    min_seconds : float
        Shorter clips are left out.
    max_seconds : float
        Longer clips are left out.
    reader : callable
        Makes a waveform of a path and a duration: a ``brainquant.data.audio.AudioReader``.

    Returns
    -------
    dataset : DynamicItemDataset
        Items ``id``, ``sig`` (the waveform, one-dimensional) and ``duration``.

    Raises
    ------
    ValueError
        Where the manifest is not right, see ``read_manifest``, or no clip is left.
    """
    rows = read_manifest(manifest, data_folder)
    seconds = [row["duration"] for row in rows.values()]
    short = sum(duration < min_seconds for duration in seconds)
    long = sum(duration > max_seconds for duration in seconds)
    if short + long == len(rows):
        raise ValueError(
            f"{manifest}: none of its {len(rows)} clips is between {min_seconds} and {max_seconds} "
            f"seconds long; change min_seconds: and max_seconds: in your YAML"
        )
    if short + long:
        logger.info(
            f"{manifest}: {short + long} of {len(rows)} clips left out, {short} below min_seconds: "
            f"{min_seconds:g}, {long} above max_seconds: {max_seconds:g}"
        )
    dataset = DynamicItemDataset({
        name: {"wav": row["wav"], "duration": row["duration"]}
        for name, row in rows.items()
        if min_seconds <= row["duration"] <= max_seconds
    })  # fmt: skip
    dataset.add_dynamic_item(reader, takes=["wav", "duration"], provides="sig")
    dataset.set_output_keys(["id", "sig", "duration"])
    return dataset


def read_manifest(manifest, data_folder):
    """Rows of a CSV manifest whose audio files are all there.

    SpeechBrain 1.1.2 looks for the column ID and for doubled IDs only; what else is wrong
    shows in the middle of the training, or never.

    Arguments
    ---------
    manifest : str
        CSV file with the columns ID, duration (seconds) and wav.
    data_folder : str
        What ``$data_root`` in the manifest stands for.

    Returns
    -------
    rows : dict
        By ID: ``wav`` (a path), ``duration`` (a float) and the other columns as text.

    Raises
    ------
    ValueError
        Which names the lines, IDs and columns that are not right.
    """
    rows = read_rows(manifest)
    for row in rows.values():
        row["wav"] = row["wav"].replace("$data_root", str(data_folder))
    if missing := _missing_files(row["wav"] for row in rows.values()):
        bad = [(line, row) for line, row in rows.items() if os.path.split(row["wav"]) in missing]
        line, row = bad[0]
        raise ValueError(
            f"{manifest}: {len(bad)} of its {len(rows)} audio files do not exist, the first is "
            f"{row['wav']} in line {line}, ID {row['ID']!r}; set data_folder: to the folder that "
            f"$data_root stands for, or take the rows out"
        )
    return {row.pop("ID"): row for row in rows.values()}


def read_rows(manifest):
    """Rows of a CSV manifest by the number of their line, whether or not the files are there.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.csv"
    >>> _ = path.write_text("ID, duration, wav\\na, 1.5, $data_root/a.wav\\n")
    >>> read_rows(path)
    {2: {'ID': 'a', 'duration': 1.5, 'wav': '$data_root/a.wav'}}
    """
    (_, columns), *table = _read_csv(manifest)
    for column in COLUMNS:
        if column not in columns:
            raise ValueError(
                f"{manifest} lacks the column {column!r}, it has {', '.join(columns) or 'none'}; "
                f"add the column"
            )
    if not table:
        raise ValueError(f"{manifest} has no rows: add a line for each audio file")
    rows, faults, first_lines = {}, [], {}
    for line, fields in table:
        row = dict(zip(columns, fields))
        fault = _fault(row, len(fields), len(columns))
        if not fault and (first := first_lines.setdefault(row["ID"], line)) != line:
            fault = f"the ID is that of line {first} too"
        if fault:
            faults.append(f"line {line}, ID {row.get('ID')!r}: {fault}")
        else:
            rows[line] = {**row, "duration": float(row["duration"])}
    if faults:
        raise ValueError(
            f"{manifest}: {len(faults)} of {len(table)} rows are not right; "
            f"{'; '.join(faults[:NUM_SHOWN])}{'; ...' if len(faults) > NUM_SHOWN else ''}; "
            f"mend them or take them out"
        )
    return rows


def _read_csv(manifest):
    """Numbers of lines and their fields, the header first; empty lines are left out."""
    try:
        # SpeechBrain 1.1.2 takes a byte-order mark for a part of the first column's name.
        with open(manifest, newline="", encoding="utf-8-sig") as file:
            # strict: a quote that is never closed would swallow the rows after it.
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            return [(reader.line_num, fields) for fields in reader if fields] or [(1, [])]
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(
            f"{manifest} is not UTF-8, it has a byte 0x{byte:02x}; save it as UTF-8"
        ) from None
    except csv.Error as error:
        raise ValueError(
            f"{manifest}, line {reader.line_num}: {error}; put fields that have commas or quotes "
            f"in quotes, and double the quotes in them"
        ) from None
    except OSError as error:
        raise ValueError(
            f"there is no manifest {manifest} to be read ({error.strerror}); set train_csv: and "
            f"valid_csv: in your YAML to CSV files with the columns {', '.join(COLUMNS)}"
        ) from None


def _fault(row, num_fields, num_columns):
    """What is wrong with a row by itself, or None."""
    if num_fields != num_columns:
        return f"it has {num_fields} fields where the header has {num_columns}"
    for column in COLUMNS:
        if not row[column].strip():
            return f"the column {column} is empty"
    try:
        seconds = float(row["duration"])
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        return f"the column duration has {row['duration']!r}, not a positive number of seconds"
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
