"""lhotse's recordings, supervisions and cuts (extra ``lhotse``)."""

import os
from decimal import Decimal

from ...tables import read_objects
from .rows import Found, Row

CUTS = ("MonoCut", "MultiCut", "MixedCut", "PaddingCut", "Cut")
TEXTS = ("text", "language", "gender")  # of a supervision


def is_lhotse(values):
    """Whether an object is a recording, a supervision or a cut.

    Example
    -------
    >>> is_lhotse({"id": "a", "recording_id": "r", "start": 0.0, "duration": 1.0})
    True
    >>> is_lhotse({"audio_filepath": "a.wav", "duration": 1.0})
    False
    """
    return (
        values.get("type") in CUTS
        or {"id", "sources", "sampling_rate"} <= {*values}
        or {"id", "recording_id", "duration"} <= {*values}
    )


def read_rows(path, objects):
    """The clips of one of lhotse's manifests.

    Arguments
    ---------
    path : str
        JSON or JSON lines. Supervisions have no paths: the file with their recordings is to be
        beside them, named as theirs, with ``recordings`` in the place of ``supervisions``.
    objects : list
        What ``brainquant.data.tables.read_objects`` has read of it.

    Returns
    -------
    Found
        A clip for each recording, supervision or cut, or for each file of it where it has several.

    Raises
    ------
    ValueError
        Where the package ``lhotse`` is missing, or the recordings of supervisions.
    """
    try:
        from lhotse.serialization import deserialize_item
    except ImportError:
        raise ValueError(
            f'{path} is a manifest of lhotse; pip install "brainquant[lhotse]" to read it, or '
            f'pip install -e ".[lhotse]" in a clone of the repository'
        ) from None
    rows, files, recordings = [], [path], {}
    if "recording_id" in objects[0][2]:
        files.append(_recordings_of(path))
        recordings = _read_recordings(files[1], deserialize_item)
    for place, _, values in objects:
        name = values.get("id")
        place = f"{place}, ID {name!r}"
        try:
            rows += _rows_of(place, deserialize_item(values), recordings)
        except _Unusable as error:
            rows.append(Row(place, "", str(name), fault=str(error)))
        except Exception as error:  # lhotse raises several kinds for a broken object
            rows.append(Row(place, "", str(name), fault=f"lhotse cannot read it ({error!r})"))
    used = [key for key in TEXTS if any(row.more.get(key) for row in rows)]
    for row in rows:
        row.more = {key: row.more.get(key, "") for key in used}
    return Found(rows, os.path.dirname(path), files, "read as lhotse's")


class _Unusable(Exception):
    """Why an object of lhotse's cannot be a clip."""


def _recordings_of(path):
    folder, name = os.path.split(path)
    beside = name.replace("supervisions", "recordings")
    stem = beside.partition(".json")[0]
    for ending in (beside.removeprefix(stem), ".jsonl.gz", ".jsonl", ".json.gz", ".json"):
        if stem + ending != name and os.path.isfile(found := os.path.join(folder, stem + ending)):
            return found
    raise ValueError(
        f"{path} has supervisions of lhotse, which have no paths of audio files; put the "
        f"recordings beside it, as {'recordings.jsonl.gz' if beside == name else beside}, or set "
        f"source: to cuts"
    )


def _read_recordings(path, deserialize_item):
    """The recordings of a file by ID."""
    recordings = {}
    for place, _, values in read_objects(path):
        try:
            recordings[values["id"]] = deserialize_item(values)
        except Exception as error:  # lhotse raises several kinds for a broken object
            raise ValueError(
                f"{path}, {place}: lhotse cannot read it as a recording ({error!r}); write the "
                f"file anew with lhotse"
            ) from None
    return recordings


def _rows_of(place, item, recordings):
    kind = type(item).__name__
    if kind == "Recording":
        return _split_files(place, item.id, item, item.channel_ids)
    if kind == "SupervisionSegment":
        recording, supervisions = recordings.get(item.recording_id), [item]
        if recording is None:
            raise _Unusable(f"there is no recording {item.recording_id!r}")
    elif kind in ("MonoCut", "MultiCut"):
        recording, supervisions = item.recording, item.supervisions
        if recording is None:
            raise _Unusable("it has no recording, only features")
    else:
        raise _Unusable(f"it is a {kind}, made of several files; save its audio with save_audios")
    channels = item.channel if isinstance(item.channel, list) else [item.channel]
    rows = _split_files(place, item.id, recording, channels)
    start = Decimal(str(item.start))
    stop = start + Decimal(str(item.duration))
    speakers = {supervision.speaker for supervision in supervisions} - {None, ""}
    speaker = speakers.pop() if len(speakers) == 1 else ""
    texts = {key: [getattr(supervision, key) for supervision in supervisions] for key in TEXTS}
    texts = {key: " ".join(filter(None, dict.fromkeys(texts[key]))) for key in TEXTS}
    for row in rows:
        if start > 0 or stop < Decimal(str(recording.duration)):
            row.start, row.stop = start, stop
        row.speaker, row.more = speaker, texts
    return rows


def _split_files(place, name, recording, channels):
    """A row for each file of a recording that has channels which are wanted."""
    if recording.transforms:
        raise _Unusable("its audio is transformed while it is read; save it with save_audios")
    rows = []
    for source in recording.sources:
        wanted = [number for number, channel in enumerate(source.channels) if channel in channels]
        if not wanted:
            continue
        if source.type != "file":
            raise _Unusable(f"its audio is of the type {source.type!r}, not a file; save it to one")
        if 1 < len(wanted) < len(source.channels):
            raise _Unusable(f"it takes {len(wanted)} of {len(source.channels)} channels; take one")
        channel = wanted[0] if len(wanted) < len(source.channels) else None
        rows.append(Row(place, str(source.source), name, channel=channel))
    if not rows:
        raise _Unusable(f"its recording {recording.id!r} has no channel {channels}")
    if len(rows) > 1:
        for number, row in enumerate(rows):
            row.id = f"{name}-{number}"
    return rows
