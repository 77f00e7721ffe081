"""Tables in text files, as manifests are: CSV, TSV and JSON files become rows."""

import contextlib
import csv
import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

ENDINGS = (".csv", ".tsv", ".json", ".jsonl")  # also in capitals, and also with .gz after them
WAV_OBJECT = ("file", "start", "stop")  # in a column wav, as SpeechBrain's read_audio takes it
NUM_SHOWN = 3  # items in a message

# The location of a row (for messages), its text by column, and its fault or None
TableRow = tuple[str, dict[str, str], str | None]
# The location of a JSON object, the ID that is its key or None, and its values
JsonObject = tuple[str, str | None, dict[str, Any]]


def ending_of(path: str | os.PathLike) -> str:
    """The ending of a file name, without .gz and in small letters.

    Example
    -------
    >>> ending_of("talks.JSONL.gz"), ending_of("talks/wav.scp"), ending_of("talks")
    ('.jsonl', '.scp', '')
    """
    name = os.path.basename(os.fspath(path)).lower().removesuffix(".gz")
    return os.path.splitext(name)[1]


def first_few(texts: Sequence[str], separator: str = "; ") -> str:
    """The first three texts in a line, with dots if there are more.

    Example
    -------
    >>> first_few("ab"), first_few("abcd", ", ")
    ('a; b', 'a, b, c, ...')
    """
    return separator.join([*texts[:NUM_SHOWN], *["..."][: len(texts) > NUM_SHOWN]])


def refuse_faults(path: str | os.PathLike, faults: Sequence[str], num_rows: int) -> None:
    """Raises a ValueError if a manifest has no rows, or faults in its rows."""
    if not num_rows:
        raise ValueError(f"{path} has no rows: add a line for each audio file")
    if faults:
        raise ValueError(
            f"{path}: {len(faults)} of {num_rows} rows are not right; {first_few(faults)}; mend "
            f"them or take them out"
        )


def read_table(path: str | os.PathLike) -> tuple[list[str], list[TableRow]]:
    """Reads the rows of a table.

    Arguments
    ---------
    path : str or os.PathLike
        A CSV file with a header; a TSV file (tabs, no quotes) with a header; or a JSON file with an
        object for each row: ``{"<ID>": {"<column>": value, ...}, ...}``, an array of objects, or
        one object per line. Values are numbers or text; that of ``wav`` may also be ``{"file": ...,
        "start": ..., "stop": ...}``. Each may be compressed with gzip.

    Returns
    -------
    columns : list of str
    rows : list of tuple
        The location of each row for messages, its text by column, and what is wrong with it or
        None.

    Raises
    ------
    ValueError
        If the file is not such a table.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.json"
    >>> _ = path.write_text('{"a": {"wav": "a.wav", "duration": 1.5}}')
    >>> read_table(path)
    (['ID', 'wav', 'duration'], [("ID 'a'", {'ID': 'a', 'wav': 'a.wav', 'duration': '1.5'}, None)])
    """
    if ending_of(path) in (".json", ".jsonl"):
        return as_table(read_objects(path))
    with opened(path) as file:
        if ending_of(path) == ".tsv":
            reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        else:  # strict: a quote that is never closed would swallow the rows after it
            reader = csv.reader(file, skipinitialspace=True, strict=True)
        try:
            lines = [(reader.line_num, fields) for fields in reader if fields]
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {reader.line_num}: {error}; put fields that have commas or quotes "
                f"in quotes, and double the quotes in them"
            ) from None
    (_, columns), *lines = lines or [(1, [])]
    if doubled := [column for column in columns if columns.count(column) > 1]:
        raise ValueError(f"{path} has the column {doubled[0]!r} twice; rename one of them")
    rows: list[TableRow] = []
    for line, fields in lines:
        fault = None
        if len(fields) != len(columns):
            fault = f"it has {len(fields)} fields where the header has {len(columns)}"
        rows.append((f"line {line}", dict(zip(columns, fields)), fault))
    return columns, _with_ids(rows)


def _with_ids(rows: Iterable[TableRow]) -> list[TableRow]:
    """Adds the IDs to the locations, and a fault to each row whose ID was there before."""
    result, locations = [], {}
    for location, row, fault in rows:
        name = row.get("ID")
        if not fault and name and (first := locations.setdefault(name, location)) != location:
            fault = f"{first} has the same ID"
        if name is not None and not location.startswith("ID"):
            location += f", ID {name!r}"
        result.append((location, row, fault))
    return result


def read_objects(path: str | os.PathLike) -> list[JsonObject]:
    """The objects of a JSON file: the location of each, its ID if that is its key, its values.

    Example
    -------
    >>> path = getfixture("tmp_path") / "nemo.json"
    >>> _ = path.write_text('{"audio_filepath": "a.wav"}\\n{"audio_filepath": "b.wav"}\\n')
    >>> read_objects(path)[1]
    ('line 2', None, {'audio_filepath': 'b.wav'})
    """
    with opened(path) as file:
        text = file.read()
    try:
        found = None if ending_of(path) == ".jsonl" else _objects_of(text)
        found = found or _objects_of_lines(text)
        if not found or not all(isinstance(row, dict) for _, _, row in found):
            raise TypeError
        return found
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); write it with a JSON library") from None
    except KeyError as error:
        raise ValueError(f"{path}: the key {error} is there twice; keep one") from None
    except TypeError:
        raise ValueError(
            f"{path} must be an object that has an object for each ID; write it as "
            '{"<ID>": {"wav": "...", "duration": 1.5}, ...}, or one object a line'
        ) from None


def _objects_of(text: str) -> list[JsonObject] | None:
    """The objects of one JSON value; None if the text is one object per line."""
    try:
        table = json.loads(text, object_pairs_hook=_without_doubles)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return None
        raise
    if isinstance(table, list):
        if not table:
            raise TypeError
        return [(f"row {number}", None, row) for number, row in enumerate(table, 1)]
    if isinstance(table, dict) and table and all(isinstance(row, dict) for row in table.values()):
        return [(f"ID {name!r}", name, row) for name, row in table.items()]
    if isinstance(table, dict) and any(isinstance(value, str) for value in table.values()):
        return None  # a single line
    raise TypeError


def _objects_of_lines(text: str) -> list[JsonObject]:
    return [
        (f"line {number}", None, json.loads(line, object_pairs_hook=_without_doubles))
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]


def as_table(objects: Iterable[JsonObject]) -> tuple[list[str], list[TableRow]]:
    """The columns and rows of ``read_table``, from the objects of ``read_objects``."""
    rows: list[TableRow] = []
    for location, name, values in objects:
        if isinstance(wav := values.get("wav"), dict):
            values = {key: value for key, value in values.items() if key != "wav"} | _part_of(wav)
        row = {column: _text(value) for column, value in values.items()}
        rows.append((location, row if name is None else row | {"ID": name}, None))
    # The same columns in all rows, as in a CSV file
    columns = list(dict.fromkeys(column for _, row, _ in rows for column in row))
    if "ID" in columns:
        columns = ["ID", *(column for column in columns if column != "ID")]
    return columns, [
        (location, {column: row.get(column, "") for column in columns}, fault)
        for location, row, fault in _with_ids(rows)
    ]


def _part_of(wav: dict[str, Any]) -> dict[str, Any]:
    """The columns for an object in the column wav.

    Example
    -------
    >>> _part_of({"file": "a.wav", "start": 0, "stop": 32000})
    {'wav': 'a.wav', 'start': 0, 'stop': 32000}
    """
    if "file" not in wav or {*wav} - {*WAV_OBJECT}:
        return {"wav": wav}
    start, stop = wav.get("start", 0), wav.get("stop", wav.get("start", 0))
    if start == stop == 0:  # SpeechBrain reads the whole file then
        return {"wav": wav["file"]}
    return {"wav": wav["file"], "start": start, "stop": None if start == stop else stop}


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of pairs; Python's own reader would silently keep the last value of a doubled key."""
    values = {}
    for key, value in pairs:
        if key in values:
            raise KeyError(key)
        values[key] = value
    return values


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def replace_root(wav: str, folder: str | os.PathLike) -> str:
    """Replaces ``$data_root`` (in SpeechBrain's CSV) or ``{data_root}`` (in its JSON) in a path.

    Example
    -------
    >>> replace_root("$data_root/a.wav", "/data"), replace_root("{data_root}/a.wav", "/data")
    ('/data/a.wav', '/data/a.wav')
    """
    if "data_root" not in wav:
        return wav
    return wav.replace("$data_root", str(folder)).replace("{data_root}", str(folder))


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[TextIO]:
    """Opens a text file in UTF-8 for reading; it may be compressed with gzip.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.csv.gz"
    >>> _ = path.write_bytes(gzip.compress("\\ufeffID\\né\\n".encode()))
    >>> with opened(path) as file:
    ...     file.read()
    'ID\\né\\n'
    """
    reader: Any = gzip.open if os.fspath(path).lower().endswith(".gz") else open
    try:
        # SpeechBrain 1.1.2 takes a byte-order mark for a part of the first column's name.
        with reader(path, "rt", newline="", encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(
            f"{path} is not UTF-8, it has a byte 0x{byte:02x}; save it as UTF-8"
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} is not a complete gzip file ({error}); compress it again"
        ) from None
    except OSError as error:
        raise ValueError(
            f"the manifest {path} cannot be read ({error.strerror}); set train_csv: and valid_csv: "
            f"in your YAML to CSV or JSON files with the columns ID, duration, wav"
        ) from None
