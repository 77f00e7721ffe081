"""Manifests, checked before anything is trained, become datasets of audio."""

import functools
import math
import os

from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.logger import get_logger

from .columns import (
    COLUMNS,
    MEMBER,
    PARTS,
    SEGMENT,
    bounds_among,
    channels_among,
    fault_of_part,
)
from .file_names import FileNames, missing_files
from .tables import read_table, replace_root

logger = get_logger(__name__)

NUM_SHOWN = 3  # bad rows in an error
UNITS = {1: "seconds", 1000: "milliseconds"}  # by samples per second, were they samples


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
        Makes a waveform of a path and a duration and, where a row has them, of ``start``,
        ``stop``, ``channel``, ``offset`` and ``size``: a ``brainquant.data.audio.AudioReader``.
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
    if others := [name for name in found if name not in (*COLUMNS, *PARTS, *columns)]:
        logger.info(f"{manifest}: its columns {', '.join(others)} are not used here")
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
    parts = [column for column in PARTS if column in found]
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
    given = {part: value for part, value in zip(parts, values) if value is not None}
    return reader(path, duration, **given)


def read_manifest(manifest, data_folder):
    """Rows of a manifest whose audio files are all there.

    SpeechBrain 1.1.2 looks for the column ID and for doubled IDs only; what else is wrong
    shows in the middle of the training, or never.

    Arguments
    ---------
    manifest : str
        CSV file with the columns ID, duration (seconds) and wav (a path), or a JSON file with the
        same by ID, see ``brainquant.data.tables.read_table``. Further columns that are understood,
        and whose cells may be empty: start and stop (samples of the file: the clip is that part of
        it); channel (from 0: the clip is that channel); offset and size (bytes: wav is an
        uncompressed tar, and the clip the file at that place).
    data_folder : str
        What ``$data_root`` or ``{data_root}`` in the column wav stands for.

    Returns
    -------
    rows : dict
        By ID: ``wav`` (a path), ``duration`` (a float), ``start``, ``stop``, ``channel``,
        ``offset`` and ``size`` where the manifest has them (int or None), and the other columns as
        text.

    Raises
    ------
    ValueError
        Which names the lines, IDs and columns that are not right.
    """
    rows = read_rows(manifest)
    for row in rows.values():
        row["wav"] = replace_root(row["wav"], data_folder)
    missing = missing_files(row["wav"] for row in rows.values())
    if missing and any(not name.isascii() or not folder.isascii() for folder, name in missing):
        names = FileNames()
        for row in rows.values():
            row["wav"] = names.find(row["wav"])
        missing = missing_files(row["wav"] for row in rows.values())
    if missing:
        bad = [(place, row) for place, row in rows.items() if os.path.split(row["wav"]) in missing]
        place, row = bad[0]
        raise ValueError(
            f"{manifest}: {len(bad)} of its {len(rows)} audio files do not exist, the first is "
            f"{row['wav']} in {place}; set data_folder: to the folder that "
            f"$data_root stands for, or take the rows out"
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
    _check_meanings(manifest, columns)
    parts = [column for column in PARTS if column in columns]
    rows, faults, places = {}, [], {}
    for place, row, fault in table:
        if fault := fault or _fault(row):
            faults.append(f"{place}: {fault}")
            continue
        row["duration"] = float(row["duration"])
        for column in parts:
            row[column] = int(row[column]) if row[column].strip() else None
        clip = (row["wav"], *(row[column] for column in parts))
        if (first := places.setdefault(clip, place)) != place:
            faults.append(f"{place}: the clip is that of {first} too")
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


def _check_meanings(manifest, columns):
    """Refuses columns that mean a part of a file, or a channel, by names that are not ours."""
    ours = {*PARTS} if {*MEMBER} <= {*columns} else {*PARTS} - {*MEMBER}
    bounds = [name for name in bounds_among(columns) if name not in ours]
    if bounds and not {*SEGMENT} <= {*columns}:
        raise ValueError(
            f"{manifest} has the column{'s' * (len(bounds) > 1)} {', '.join(bounds)}: which part "
            f"of its file is a clip? Name two columns start and stop, in samples at the file's own "
            f"rate, or prepare manifests of it with source: of recipes/OwnSpeech, which takes "
            f"seconds in start_time and end_time, too"
        )
    channels = channels_among(columns)
    if channels and "channel" not in channels:
        raise ValueError(
            f"{manifest} has the column {channels[0]!r}; name it channel, and count from 0 up"
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
    if (fault := fault_of_part(row)) or not row.get("start", "").strip():
        return fault
    start, stop = (int(row[column]) for column in SEGMENT)
    for rate, unit in UNITS.items():
        if abs((stop - start) / seconds - rate) < 0.1 * rate:
            return (
                f"the columns start and stop have {start} and {stop} where the duration is "
                f"{seconds:g} s: they look like {unit}, and must be samples at the file's own rate"
            )
    return None
