"""Tables of text, as manifests are: CSV files and SpeechBrain's JSON files become rows."""

import contextlib
import csv
import json
import os


def is_json(path):
    """Whether a table is read as JSON: by the ending of its name."""
    return os.fspath(path).endswith(".json")


def read_table(path):
    """Reads the rows of a CSV or JSON file.

    Arguments
    ---------
    path : str or os.PathLike
        A CSV file with a header, or a JSON file ``{"<ID>": {"<column>": value, ...}, ...}``,
        whose values are numbers or text.

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
    return _read_json(path) if is_json(path) else _read_csv(path)


def _read_csv(path):
    with _opened(path) as file:
        # strict: a quote that is never closed would swallow the rows after it.
        reader = csv.reader(file, skipinitialspace=True, strict=True)
        try:
            lines = [(reader.line_num, fields) for fields in reader if fields]
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {reader.line_num}: {error}; put fields that have commas or quotes "
                f"in quotes, and double the quotes in them"
            ) from None
    (_, columns), *lines = lines or [(1, [])]
    rows, first_lines = [], {}
    for line, fields in lines:
        row, fault = dict(zip(columns, fields)), None
        name = row.get("ID")
        if len(fields) != len(columns):
            fault = f"it has {len(fields)} fields where the header has {len(columns)}"
        elif name and (first := first_lines.setdefault(name, line)) != line:
            fault = f"the ID is that of line {first} too"
        rows.append((f"line {line}, ID {name!r}", row, fault))
    return columns, rows


def _read_json(path):
    with _opened(path) as file:
        try:
            table = json.load(file, object_pairs_hook=_without_doubles)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path} is not JSON ({error}); write it with a JSON library"
            ) from None
        except KeyError as error:
            raise ValueError(f"{path}: the key {error} is there twice; keep one") from None
    rows = table.values() if isinstance(table, dict) else ()
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            f"{path} must be an object that has an object for each ID; write it as "
            '{"<ID>": {"wav": "...", "duration": 1.5}, ...}'
        )
    # As the columns of a CSV are: the same for all rows.
    columns = list(dict.fromkeys(["ID", *(column for row in rows for column in row)]))
    return columns, [
        (
            f"ID {name!r}",
            {column: _text(row.get(column)) for column in columns} | {"ID": name},
            None,
        )
        for name, row in table.items()
    ]


def _without_doubles(pairs):
    """Python's reader would silently take the last of those that have the same key."""
    values = {}
    for key, value in pairs:
        if key in values:
            raise KeyError(key)
        values[key] = value
    return values


def _text(value):
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@contextlib.contextmanager
def _opened(path):
    try:
        # SpeechBrain 1.1.2 takes a byte-order mark for a part of the first column's name.
        with open(path, newline="", encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(
            f"{path} is not UTF-8, it has a byte 0x{byte:02x}; save it as UTF-8"
        ) from None
    except OSError as error:
        raise ValueError(
            f"there is no manifest {path} to be read ({error.strerror}); set train_csv: and "
            f"valid_csv: in your YAML to CSV or JSON files with the columns ID, duration, wav"
        ) from None
