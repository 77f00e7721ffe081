"""Tables of text, as manifests are: CSV, TSV and JSON files become rows."""

import contextlib
import csv
import gzip
import json
import os
import zlib

KINDS = (".csv", ".tsv", ".json", ".jsonl")  # each may end with .gz, too, and be in capitals
WAV_OBJECT = ("file", "start", "stop")  # of a column wav, as SpeechBrain's read_audio takes it


def kind_of(path):
    """The ending of a table's name, without .gz, in small letters.

    Example
    -------
    >>> kind_of("talks.JSONL.gz"), kind_of("talks/wav.scp"), kind_of("talks")
    ('.jsonl', '.scp', '')
    """
    name = os.path.basename(os.fspath(path)).lower().removesuffix(".gz")
    return os.path.splitext(name)[1]


def read_table(path):
    """Reads the rows of a table.

    Arguments
    ---------
    path : str or os.PathLike
        A CSV file with a header; a TSV file (tabs, no quotes) with one; or a JSON file with an
        object for each row: ``{"<ID>": {"<column>": value, ...}, ...}``, an array of them, or one a
        line. Values are numbers or text; that of ``wav`` may be ``{"file": ..., "start": ...,
        "stop": ...}``, too. Each may be compressed with gzip.

    Returns
    -------
    columns : list of str
    rows : list of tuple
        Where a row is, for people; its text by column; what is wrong with it as a row, or None.

    Raises
    ------
    ValueError
        Where the file is no such table.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.json"
    >>> _ = path.write_text('{"a": {"wav": "a.wav", "duration": 1.5}}')
    >>> read_table(path)
    (['ID', 'wav', 'duration'], [("ID 'a'", {'ID': 'a', 'wav': 'a.wav', 'duration': '1.5'}, None)])
    """
    if kind_of(path) in (".json", ".jsonl"):
        return as_table(read_objects(path))
    return _read_lines(path, tabs=kind_of(path) == ".tsv")


def _read_lines(path, tabs):
    # strict: a quote that is never closed would swallow the rows after it.
    dialect = {"skipinitialspace": True, "strict": True}
    if tabs:
        dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    with opened(path) as file:
        reader = csv.reader(file, **dialect)
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
    rows, first_lines = [], {}
    for line, fields in lines:
        row, fault = dict(zip(columns, fields)), None
        name = row.get("ID")
        if len(fields) != len(columns):
            fault = f"it has {len(fields)} fields where the header has {len(columns)}"
        elif name and (first := first_lines.setdefault(name, line)) != line:
            fault = f"the ID is that of line {first} too"
        rows.append(
            (f"line {line}, ID {name!r}" if name is not None else f"line {line}", row, fault)
        )
    return columns, rows


def read_objects(path):
    """The objects of a JSON file, as (where it is, for people; its ID or None; its values).

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
        if kind_of(path) == ".jsonl":
            return _lines_of(text)
        return _objects_of(text) or _lines_of(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); write it with a JSON library") from None
    except KeyError as error:
        raise ValueError(f"{path}: the key {error} is there twice; keep one") from None
    except TypeError:
        raise ValueError(
            f"{path} must be an object that has an object for each ID; write it as "
            '{"<ID>": {"wav": "...", "duration": 1.5}, ...}, or one object a line'
        ) from None


def _objects_of(text):
    """Those of a whole JSON text; None where it is made of lines."""
    try:
        table = json.loads(text, object_pairs_hook=_without_doubles)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return None
        raise
    if isinstance(table, list):
        found = [(f"row {number}", None, row) for number, row in enumerate(table, 1)]
    elif isinstance(table, dict) and all(isinstance(row, dict) for row in table.values()):
        found = [(f"ID {name!r}", name, row) for name, row in table.items()]
    elif isinstance(table, dict) and any(isinstance(value, str) for value in table.values()):
        return None  # a single line
    else:
        raise TypeError
    return _all_objects(found)


def _lines_of(text):
    return _all_objects([
        (f"line {number}", None, json.loads(line, object_pairs_hook=_without_doubles))
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ])  # fmt: skip


def _all_objects(found):
    if not found or not all(isinstance(row, dict) for _, _, row in found):
        raise TypeError
    return found


def as_table(objects):
    """Columns and rows, as ``read_table`` returns them, of what ``read_objects`` returns."""
    rows, first_places = [], {}
    for place, name, values in objects:
        if isinstance(wav := values.get("wav"), dict):
            values = {key: value for key, value in values.items() if key != "wav"} | _part_of(wav)
        row = {column: _text(value) for column, value in values.items()}
        if name is not None:
            row["ID"] = name
        elif "ID" in row:
            place += f", ID {row['ID']!r}"
        fault = None
        if (name := row.get("ID")) and (first := first_places.setdefault(name, place)) != place:
            fault = f"the ID is that of {first.split(',')[0]} too"
        rows.append((place, row, fault))
    # As the columns of a CSV are: the same for all rows.
    columns = list(dict.fromkeys(column for _, row, _ in rows for column in row))
    if "ID" in columns:
        columns = ["ID", *(column for column in columns if column != "ID")]
    return columns, [
        (place, {column: row.get(column, "") for column in columns}, fault)
        for place, row, fault in rows
    ]


def _part_of(wav):
    """The columns of an object in the column wav.

    Example
    -------
    >>> _part_of({"file": "a.wav", "start": 0, "stop": 32000})
    {'wav': 'a.wav', 'start': 0, 'stop': 32000}
    """
    if "file" not in wav or {*wav} - {*WAV_OBJECT}:
        return {"wav": wav}
    start, stop = wav.get("start", 0), wav.get("stop", wav.get("start", 0))
    if start == stop == 0:  # what SpeechBrain reads as the whole file
        return {"wav": wav["file"]}
    return {"wav": wav["file"], "start": start, "stop": None if start == stop else stop}


def _without_doubles(pairs):
    """Python's reader would silently take the last of those that have the same key."""
    values = dict(pairs)
    if len(values) < len(pairs):
        seen = set()
        raise KeyError(next(key for key, _ in pairs if key in seen or seen.add(key)))
    return values


def _text(value):
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def replace_root(wav, folder):
    """A path, with a folder in the place of ``$data_root``, or of ``{data_root}``.

    SpeechBrain writes the first in CSV and the second in JSON.

    Example
    -------
    >>> replace_root("$data_root/a.wav", "/data"), replace_root("{data_root}/a.wav", "/data")
    ('/data/a.wav', '/data/a.wav')
    """
    if "data_root" not in wav:
        return wav
    return wav.replace("$data_root", str(folder)).replace("{data_root}", str(folder))


@contextlib.contextmanager
def opened(path):
    """A file of text, UTF-8, open for reading; it may be compressed with gzip.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.csv.gz"
    >>> _ = path.write_bytes(gzip.compress("\\ufeffID\\né\\n".encode()))
    >>> with opened(path) as file:
    ...     file.read()
    'ID\\né\\n'
    """
    reader = gzip.open if os.fspath(path).lower().endswith(".gz") else open
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
        raise ValueError(f"{path} is no whole gzip file ({error}); compress it anew") from None
    except OSError as error:
        raise ValueError(
            f"there is no manifest {path} to be read ({error.strerror}); set train_csv: and "
            f"valid_csv: in your YAML to CSV or JSON files with the columns ID, duration, wav"
        ) from None
