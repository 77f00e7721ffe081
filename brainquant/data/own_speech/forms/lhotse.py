"""lhotse's recordings, supervisions and cuts (extra ``lhotse``)."""

import os
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from ...tables import JsonObject, read_objects
from ..clips import Clip
from .found import Found

CUTS = ("MonoCut", "MultiCut", "MixedCut", "PaddingCut", "Cut")
TEXTS = ("text", "language", "gender")  # of a supervision


def is_lhotse(values: dict[str, Any]) -> bool:
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


def read_rows(path: str, objects: list[JsonObject]) -> Found:
    """The clips of a lhotse manifest: one for each recording, supervision or cut.

    If one of these has several files, there is a clip for each file. Supervisions have no paths:
    the file with their recordings must be beside them, and have the same name with ``recordings``
    instead of ``supervisions``. ``objects`` is the result of ``read_objects``.
    """
    try:
        from lhotse.serialization import deserialize_item
    except ImportError:
        raise ValueError(
            f'{path} is a manifest of lhotse; pip install "brainquant[lhotse]" to read it, or '
            f'pip install -e ".[lhotse]" in a clone of the repository'
        ) from None
    clips, files, recordings = [], [path], {}
    if "recording_id" in objects[0][2]:
        files.append(_recordings_of(path))
        recordings = _read_recordings(files[1], deserialize_item)
    for location, _, values in objects:
        name = values.get("id")
        location = f"{location}, ID {name!r}"
        try:
            clips += _clips_of(location, deserialize_item(values), recordings)
        except _Unusable as error:
            clips.append(Clip(str(name), "", location=location, fault=str(error)))
        except Exception as error:  # lhotse raises several kinds for a broken object
            fault = f"lhotse cannot read it ({error!r})"
            clips.append(Clip(str(name), "", location=location, fault=fault))
    used = [key for key in TEXTS if any(clip.more.get(key) for clip in clips)]
    for clip in clips:
        clip.more = {key: clip.more.get(key, "") for key in used}
    return Found(clips, os.path.dirname(path), files, "read as lhotse's")


class _Unusable(Exception):
    """The reason why an object of lhotse cannot be a clip."""


def _recordings_of(path: str) -> str:
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


def _read_recordings(path: str, deserialize_item: Callable[[Any], Any]) -> dict[str, Any]:
    """The recordings of a file by ID."""
    recordings = {}
    for location, _, values in read_objects(path):
        try:
            recordings[values["id"]] = deserialize_item(values)
        except Exception as error:  # lhotse raises several kinds for a broken object
            raise ValueError(
                f"{path}, {location}: lhotse cannot read it as a recording ({error!r}); write the "
                f"file again with lhotse"
            ) from None
    return recordings


def _clips_of(location: str, item: Any, recordings: dict[str, Any]) -> list[Clip]:
    kind = type(item).__name__
    if kind == "Recording":
        return _split_files(location, item.id, item, item.channel_ids)
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
    clips = _split_files(location, item.id, recording, channels)
    start = Decimal(str(item.start))
    stop = start + Decimal(str(item.duration))
    speakers = {supervision.speaker for supervision in supervisions} - {None, ""}
    speaker = speakers.pop() if len(speakers) == 1 else ""
    texts = {key: [getattr(supervision, key) for supervision in supervisions] for key in TEXTS}
    texts = {key: " ".join(filter(None, dict.fromkeys(texts[key]))) for key in TEXTS}
    for clip in clips:
        if start > 0 or stop < Decimal(str(recording.duration)):
            clip.start, clip.stop = start, stop
        clip.speaker, clip.more = speaker, texts
    return clips


def _split_files(location: str, name: str, recording: Any, channels: list[int]) -> list[Clip]:
    """A clip for each file of a recording that has some of the channels."""
    if recording.transforms:
        raise _Unusable("its audio is transformed while it is read; save it with save_audios")
    clips = []
    for source in recording.sources:
        wanted = [number for number, channel in enumerate(source.channels) if channel in channels]
        if not wanted:
            continue
        if source.type != "file":
            raise _Unusable(f"its audio is of the type {source.type!r}, not a file; save it to one")
        if 1 < len(wanted) < len(source.channels):
            raise _Unusable(f"it takes {len(wanted)} of {len(source.channels)} channels; take one")
        channel = wanted[0] if len(wanted) < len(source.channels) else None
        clips.append(Clip(name, str(source.source), channel=channel, location=location))
    if not clips:
        raise _Unusable(f"its recording {recording.id!r} has no channel {channels}")
    if len(clips) > 1:
        for number, clip in enumerate(clips):
            clip.id = f"{name}-{number}"
    return clips
