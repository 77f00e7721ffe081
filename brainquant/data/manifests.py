"""Manifests are checked before training starts, and become datasets of audio."""

import functools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from speechbrain.utils.logger import get_logger

from .columns import (
    COLUMNS,
    MEMBER,
    PARTS,
    SEGMENT,
    bounds_among,
    check_channel_column,
    fault_of_part,
)
from .file_names import FileNames, missing_files
from .selection import ClipDataset, select
from .tables import read_table, refuse_faults, replace_root

logger = get_logger(__name__)

UNITS = {1: "seconds", 1000: "milliseconds"}  # wrong units of start and stop


def load_dataset(
    manifest: str | os.PathLike,
    data_folder: str | os.PathLike,
    min_seconds: float = 0.0,
    max_seconds: float = math.inf,
    *,
    reader: Callable[..., torch.Tensor],
    columns: Sequence[str] = (),
    remedy: str = "change min_seconds: and max_seconds:",
) -> ClipDataset:
    """Checks a manifest and makes a dataset of its audio.

    Arguments
    ---------
    manifest, data_folder : str or os.PathLike
        See ``read_manifest``.
    min_seconds, max_seconds : float
        Shorter and longer clips are left out.
    reader : callable
        Makes a waveform from a path, a duration and, if a row has them, ``start``, ``stop``,
        ``channel``, ``offset`` and ``size``; a ``brainquant.data.audio.AudioReader``.
    columns : sequence of str
        Further columns of the manifest that become items, as text.
    remedy : str
        What to do if no clip is left, for the error.

    Returns
    -------
    dataset : ClipDataset
        Items ``id``, ``sig`` (the waveform, one-dimensional), ``duration`` and the ``columns``. Its
        ``selection`` says what of the manifest is in it.

    Raises
    ------
    ValueError
        If the manifest is not right, lacks one of the columns, or no clip is left.
    """
    rows = read_manifest(manifest, data_folder)
    found = next(iter(rows.values()))
    _check_columns(manifest, columns, found)
    if others := [name for name in found if name not in (*COLUMNS, *PARTS, *columns)]:
        logger.info(f"{manifest}: its columns {', '.join(others)} are not used here")
    selection, kept = select(manifest, rows, min_seconds, max_seconds)
    short, long = len(selection.short_N), len(selection.long_N)
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
    dataset = ClipDataset({
        name: {column: row[column] for column in ("wav", "duration", *parts, *columns)}
        for name, row in kept.items()
    })  # fmt: skip
    dataset.selection = selection
    read = functools.partial(_read_clip, reader, parts)
    dataset.add_dynamic_item(read, takes=["wav", "duration", *parts], provides="sig")
    dataset.set_output_keys(["id", "sig", "duration", *columns])
    return dataset


def _read_clip(
    reader: Callable[..., torch.Tensor],
    parts: list[str],
    path: str,
    duration: float,
    *values: int | None,
) -> torch.Tensor:
    given = {part: value for part, value in zip(parts, values) if value is not None}
    return reader(path, duration, **given)


def read_manifest(
    manifest: str | os.PathLike, data_folder: str | os.PathLike
) -> dict[str, dict[str, Any]]:
    """Reads the rows of a manifest, and checks that all of its audio files exist.

    SpeechBrain 1.1.2 checks only the column ID and doubled IDs. Other errors appear in the middle
    of the training, or never.

    Arguments
    ---------
    manifest : str or os.PathLike
        CSV file with the columns ID, duration (seconds) and wav (a path), or a JSON file with the
        same by ID, see ``brainquant.data.tables.read_table``. Further columns, whose cells may be
        empty: start and stop (the samples of the file that are the clip); channel (the channel that
        is the clip, from 0); offset and size (wav is an uncompressed tar, and these bytes of it are
        the clip's file).
    data_folder : str or os.PathLike
        Replaces ``$data_root`` or ``{data_root}`` in the column wav.

    Returns
    -------
    rows : dict
        By ID: ``wav`` (a path), ``duration`` (a float); ``start``, ``stop``, ``channel``,
        ``offset`` and ``size`` (int or None) if the manifest has them; and the other columns as
        text.

    Raises
    ------
    ValueError
        If something is not right; it names the lines, IDs and columns.
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
        bad = [(at, row) for at, row in rows.items() if os.path.split(row["wav"]) in missing]
        location, row = bad[0]
        raise ValueError(
            f"{manifest}: {len(bad)} of its {len(rows)} audio files do not exist, the first is "
            f"{row['wav']} in {location}; set data_folder: to the folder that "
            f"$data_root stands for, or take the rows out"
        )
    return {row.pop("ID"): row for row in rows.values()}


def read_rows(manifest: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """The rows of a manifest by their location in it, whether or not the files exist.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.csv"
    >>> _ = path.write_text("ID, duration, wav\\na, 1.5, $data_root/a.wav\\n")
    >>> read_rows(path)
    {"line 2, ID 'a'": {'ID': 'a', 'duration': 1.5, 'wav': '$data_root/a.wav'}}
    """
    columns, table = read_table(manifest)
    _check_columns(manifest, COLUMNS, columns)
    _check_names_of_parts(manifest, columns)
    parts = [column for column in PARTS if column in columns]
    rows: dict[str, dict[str, Any]] = {}
    faults, locations = [], {}
    for location, cells, fault in table:
        if fault := fault or _fault(cells):
            faults.append(f"{location}: {fault}")
            continue
        numbers = {name: int(cells[name]) if cells[name].strip() else None for name in parts}
        rows[location] = {**cells, "duration": float(cells["duration"]), **numbers}
        clip = (cells["wav"], *numbers.values())
        if (first := locations.setdefault(clip, location)) != location:
            faults.append(f"{location}: {first} has the same clip")
    refuse_faults(manifest, faults, len(table))
    return rows


def _check_columns(
    manifest: str | os.PathLike, wanted: Iterable[str], columns: Iterable[str]
) -> None:
    for column in wanted:
        if column not in columns:
            raise ValueError(
                f"{manifest} lacks the column {column!r}, it has {', '.join(columns) or 'none'}; "
                f"add the column"
            )


def _check_names_of_parts(manifest: str | os.PathLike, columns: list[str]) -> None:
    """Refuses columns that mean a part of a file, or a channel, under other names than ours."""
    ours = {*PARTS} if {*MEMBER} <= {*columns} else {*PARTS} - {*MEMBER}
    bounds = [name for name in bounds_among(columns) if name not in ours]
    if bounds and not {*SEGMENT} <= {*columns}:
        raise ValueError(
            f"{manifest} has the column{'s' * (len(bounds) > 1)} {', '.join(bounds)}: which part "
            f"of its file is a clip? Name two columns start and stop, in samples at the file's own "
            f"rate, or prepare manifests of it with source: of recipes/OwnSpeech, which takes "
            f"seconds in start_time and end_time, too"
        )
    check_channel_column(manifest, columns)


def _fault(row: Mapping[str, str]) -> str | None:
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
