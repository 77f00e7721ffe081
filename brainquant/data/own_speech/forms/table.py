"""Tables with a column of paths: SpeechBrain, NeMo, Common Voice, Hugging Face, and others."""

import os
from collections.abc import Sequence

from ...columns import (
    CHANNEL,
    DECIMAL,
    MEMBER,
    SEGMENT,
    SPEAKER,
    bounds_among,
    check_channel_column,
    fault_of_part,
)
from ...tables import JsonObject, TableRow, as_table, ending_of, read_table
from ..clips import Clip
from .found import Found, part_of

# The names of the path (SpeechBrain, NeMo, Hugging Face, Common Voice)
WAV = ("wav", "audio_filepath", "file_name", "path")
SECONDS = (("start_time", "end_time"), ("start_time", "duration"), ("offset", "duration"))
EITHER = (("start", "end"), ("start", "duration"))  # seconds for some tools, samples for others
EXAMPLES = {
    ".csv": "wav,spk_id and below it talks/a.flac,anna",
    ".tsv": "path<tab>client_id and below it a.mp3<tab>anna",
    ".json": '{"a": {"wav": "{data_root}/a.flac", "spk_id": "anna"}}',
    ".jsonl": '{"audio_filepath": "a.flac", "offset": 0.5, "duration": 2.0} in each line',
}


def read_rows(path: str, objects: list[JsonObject] | None = None) -> Found:
    """The clips of a CSV, TSV or JSON file with paths in a column ``wav`` or a name like it.

    ``objects`` is the result of ``read_objects`` if that was called already. A ValueError is raised
    if no column has paths, or the meaning of a column is not clear.

    Example
    -------
    >>> path = getfixture("tmp_path") / "nemo.jsonl"
    >>> _ = path.write_text('{"audio_filepath": "a.wav", "offset": 0.5, "duration": 2, "x": "y"}')
    >>> clip = read_rows(str(path)).clips[0]
    >>> clip.wav, clip.start, clip.stop, clip.more
    ('a.wav', Decimal('0.5'), Decimal('2.5'), {'x': 'y'})
    """
    columns, table = read_table(path) if objects is None else as_table(objects)
    if (wav := _first(WAV, columns)) is None:
        raise ValueError(
            f"{path} lacks the column 'wav', it has {', '.join(columns) or 'none'}; name the "
            f"column with the paths wav, as in {EXAMPLES[ending_of(path)]}"
        )
    speaker = _first(SPEAKER, columns)
    check_channel_column(path, columns)
    bounds = _bounds(path, columns, table, wav)
    used = {"ID", wav, speaker, CHANNEL, "duration", *bounds}
    more = [column for column in columns if column not in used]
    clips = []
    for location, cells, fault in table:
        clip = Clip(cells.get("ID", "").strip(), cells.get(wav, ""), location=location, fault=fault)
        clips.append(clip)
        if fault:
            continue
        clip.speaker = cells[speaker].strip() if speaker else ""
        clip.more = {column: cells[column] for column in more}
        try:
            _set_part(clip, cells, bounds)
        except ValueError as error:
            clip.fault = str(error)
        if not clip.wav.strip():
            clip.fault = f"the column {wav} is empty"
    folder = os.path.dirname(path)
    if wav == "path" and "client_id" in columns:  # Common Voice
        audio = os.path.join(folder, "clips")
        folder = audio if os.path.isdir(audio) else folder
    remark = f"its further columns are kept as text: {', '.join(more)}" if more else ""
    return Found(clips, folder, [path], remark)


def _first(names: Sequence[str], columns: list[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _bounds(path: str, columns: list[str], table: list[TableRow], wav: str) -> tuple[str, ...]:
    """The two columns that say which part of its file a clip is, or ()."""
    bounds = {*bounds_among(columns)}
    if not bounds:
        # NeMo reads only this much of a file, even if it is longer.
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
        f"samples at the file's own rate, and remove other columns for this"
    )


def _set_part(clip: Clip, cells: dict[str, str], bounds: tuple[str, ...]) -> None:
    """Fills start, stop and channel of a clip."""
    ours = (CHANNEL, *SEGMENT) if bounds == SEGMENT else (CHANNEL,)
    if fault := fault_of_part({name: cells.get(name, "") for name in ours}):
        hint = "; seconds go in start_time and end_time"
        raise ValueError(fault + hint if fault.endswith("of samples") else fault)
    if text := cells.get(CHANNEL, "").strip():
        clip.channel = int(text)
    if not bounds:
        return
    first, last = bounds
    start, end = cells.get(first, ""), cells.get(last, "")
    if bounds != SEGMENT:
        clip.start, clip.stop = part_of(first, last, start, end, is_length=last == "duration")
    elif start.strip():
        clip.start, clip.stop = int(start), int(end)
