"""Tables with a column of paths: SpeechBrain, NeMo, Common Voice, Hugging Face, and others."""

import os

from ...columns import (
    CHANNEL,
    DECIMAL,
    MEMBER,
    SEGMENT,
    bounds_among,
    channels_among,
    fault_of_part,
)
from ...tables import as_table, kind_of, read_table
from .rows import Found, Row, part_of

# What tools call the path (SpeechBrain, NeMo, Hugging Face, Common Voice) and the speaker.
WAV = ("wav", "audio_filepath", "file_name", "path")
SPEAKER = ("spk_id", "speaker", "client_id", "speaker_id")
SECONDS = (("start_time", "end_time"), ("start_time", "duration"), ("offset", "duration"))
EITHER = (("start", "end"), ("start", "duration"))  # seconds for some tools, samples for others
EXAMPLES = {
    ".csv": "wav,spk_id and below it talks/a.flac,anna",
    ".tsv": "path<tab>client_id and below it a.mp3<tab>anna",
    ".json": '{"a": {"wav": "{data_root}/a.flac", "spk_id": "anna"}}',
    ".jsonl": '{"audio_filepath": "a.flac", "offset": 0.5, "duration": 2.0} in each line',
}


def read_rows(path, objects=None):
    """The clips of a table whose paths are in a column ``wav``, or as other tools call it.

    Arguments
    ---------
    path : str
        A CSV, TSV or JSON file.
    objects : list or None
        What ``read_objects`` has read of it. None: it is read.

    Returns
    -------
    Found

    Raises
    ------
    ValueError
        Where it has no column of paths, or columns whose meaning is not clear.

    Example
    -------
    >>> path = getfixture("tmp_path") / "nemo.jsonl"
    >>> _ = path.write_text('{"audio_filepath": "a.wav", "offset": 0.5, "duration": 2, "x": "y"}')
    >>> row = read_rows(str(path)).rows[0]
    >>> row.wav, row.start, row.stop, row.more
    ('a.wav', Decimal('0.5'), Decimal('2.5'), {'x': 'y'})
    """
    columns, table = read_table(path) if objects is None else as_table(objects)
    if (wav := _first(WAV, columns)) is None:
        raise ValueError(
            f"{path} lacks the column 'wav', it has {', '.join(columns) or 'none'}; name the "
            f"column with the paths wav, as in {EXAMPLES[kind_of(path)]}"
        )
    speaker = _first(SPEAKER, columns)
    if (channels := channels_among(columns)) and CHANNEL not in channels:
        raise ValueError(
            f"{path} has the column {channels[0]!r}; name it channel, and count from 0 up"
        )
    bounds = _bounds(path, columns, table, wav)
    taken = {"ID", wav, speaker, CHANNEL, "duration", *bounds}
    more = [column for column in columns if column not in taken]
    rows = []
    for place, cells, fault in table:
        row = Row(place, cells.get(wav, ""), cells.get("ID", "").strip(), fault=fault)
        rows.append(row)
        if fault:
            continue
        row.speaker = cells[speaker].strip() if speaker else ""
        row.more = {column: cells[column] for column in more}
        try:
            _set_part(row, cells, bounds)
        except ValueError as error:
            row.fault = str(error)
        if not row.wav.strip():
            row.fault = f"the column {wav} is empty"
    folder = os.path.dirname(path)
    if wav == "path" and "client_id" in columns:  # Common Voice
        clips = os.path.join(folder, "clips")
        folder = clips if os.path.isdir(clips) else folder
    remark = f"its further columns are kept as text: {', '.join(more)}" if more else ""
    return Found(rows, folder, [path], remark)


def _first(names, columns):
    return next((name for name in names if name in columns), None)


def _bounds(path, columns, table, wav):
    """The two columns that say which part of its file a clip is; () where there are none."""
    bounds = {*bounds_among(columns)}
    if not bounds:
        # NeMo reads so much of a file, even where it lasts longer.
        return ("offset", "duration") if wav == "audio_filepath" and "duration" in columns else ()
    if bounds <= {*SEGMENT} and ("stop" in bounds or "duration" not in columns):
        return SEGMENT
    if {*MEMBER} <= {*columns}:
        raise ValueError(
            f"{path} has the columns offset and size, as manifests of shards have them; set "
            f"train_csv: and valid_csv: to those manifests, and prepare: null"
        )
    for pair in (*SECONDS, *EITHER):
        if bounds != {*pair} - {"duration"} or not {*pair} <= {*columns}:
            continue
        cells = (row.get(name, "") for _, row, _ in table for name in bounds)
        if pair in SECONDS or any(DECIMAL.fullmatch(cell.strip()) for cell in cells):
            return pair
        raise ValueError(
            f"{path} has the columns {' and '.join(pair)}: do they count samples or seconds? Name "
            f"them start_time and end_time where they are seconds, start and stop where they are "
            f"samples at the file's own rate"
        )
    named = [column for column in columns if column in bounds]
    raise ValueError(
        f"{path} has the column{'s' * (len(named) > 1)} {', '.join(named)}: which part of its file "
        f"is a clip? Name two columns start_time and end_time, in seconds, or start and stop, in "
        f"samples at the file's own rate, and take out what else means that"
    )


def _set_part(row, cells, bounds):
    """Fills start, stop and channel of a row."""
    ours = (CHANNEL, *SEGMENT) if bounds == SEGMENT else (CHANNEL,)
    if fault := fault_of_part({name: cells.get(name, "") for name in ours}):
        hint = "; seconds go in start_time and end_time"
        raise ValueError(fault + hint if fault.endswith("of samples") else fault)
    if text := cells.get(CHANNEL, "").strip():
        row.channel = int(text)
    if bounds == SEGMENT:
        texts = [cells[name].strip() for name in SEGMENT]
        row.start, row.stop = map(int, texts) if any(texts) else (None, None)
    elif bounds:
        first, last = (cells.get(name, "") for name in bounds)
        row.start, row.stop = part_of(*bounds, first, last, is_length=bounds[1] == "duration")
