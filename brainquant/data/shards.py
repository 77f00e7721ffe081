"""Shards: the clips of a manifest in a few large tar files, in webdataset's convention.

A shared disk serves a few large files far faster than millions of small ones. The new manifest
gives the tar of each clip and its bytes there (as webdataset's ``wids`` reads its shards). Shards
are not read as a stream, so batches, ranks, resuming and bad audio work exactly as with files.
"""

import csv
import hashlib
import io
import json
import os
import tarfile
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

import soundfile
from speechbrain.utils.logger import get_logger
from speechbrain.utils.parallel import parallel_map

from .audio.decoders import DType, Header, read_samples
from .audio.files import BadAudio, open_file, pieces_of, read_bytes
from .audio.headers import check_clip, read_header
from .audio.kinds import KINDS, kind_of
from .audio.reader import bad_clip, check_duration
from .manifests import COLUMNS, MEMBER, SEGMENT, read_manifest
from .prepare import write_whole

logger = get_logger(__name__)

Clips = list[tuple[str, dict[str, Any]]]  # ID and row

# Segments that FLAC stores without loss: libsndfile's subtype, and the type of samples
FLAC_SUBTYPES: dict[str, DType] = {"PCM_16": "int16", "PCM_24": "int32"}
FLAC_CHANNELS = 8  # at most
FLAC_RATES = (range(1, 65_536), range(65_540, 655_351, 10))  # Hz
TAR_BYTES = 2048  # of a clip besides its audio: two headers, and the other columns


def write_shards(
    manifest: str | os.PathLike,
    data_folder: str | os.PathLike,
    output_folder: str | os.PathLike,
    *,
    shard_bytes: int = 1_000_000_000,
    num_workers: int = 1,
) -> str:
    """Packs the clips of a manifest into shards, in the manifest's order.

    For each clip, a shard ``<name of the manifest>-000000.tar`` has the unchanged bytes of its
    audio file as ``<key>.<ext>``, and its other columns as ``<key>.json``. A segment of a longer
    file is cut out without loss. The key is the percent-encoded ID, with ``%2E`` for a dot, at
    which webdataset would end it.

    After an interruption, call it again: complete shards are kept.

    Arguments
    ---------
    manifest : str or os.PathLike
        CSV or JSON file, see ``brainquant.data.manifests.read_manifest``.
    data_folder : str or os.PathLike
        Replaces ``$data_root`` in the manifest.
    output_folder : str or os.PathLike
        Where to write: the new ``data_folder``.
    shard_bytes : int
        The approximate size of a shard.
    num_workers : int
        The number of processes that write.

    Returns
    -------
    path : str
        The new manifest, ``<output_folder>/<name of the manifest>.csv``. Clips that cannot be read
        are not in it; a warning names them.

    Raises
    ------
    ValueError
        If the manifest is not right, no clip can be read, or the folder has other content.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.flac", [0.0] * 16000, 16000)
    >>> _ = (folder / "train.csv").write_text("ID,duration,wav\\na,1.0,$data_root/a.flac\\n")
    >>> path = write_shards(folder / "train.csv", folder, folder / "shards")
    >>> row = read_manifest(path, folder / "shards")["a"]
    >>> read_bytes(row["wav"], row["offset"], row["size"]) == read_bytes(folder / "a.flac")
    True
    """
    for name, value in {"shard_bytes": shard_bytes, "num_workers": num_workers}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {name}={value}; leave it out")
    rows = read_manifest(manifest, data_folder)
    name = os.path.splitext(os.path.basename(manifest))[0]
    path = os.path.join(output_folder, f"{name}.csv")
    shards = [
        (os.path.join(output_folder, f"{name}-{number:06d}.tar"), clips)
        for number, clips in enumerate(_plan(rows, shard_bytes))
    ]
    _claim_folder(output_folder, name, shards)

    logger.info("Packing %d clips into %d shards in %s", len(rows), len(shards), output_folder)
    done = parallel_map(
        _make_shard,
        shards,
        process_count=min(num_workers, len(shards)),
        chunk_size=1,
        progress_bar_kwargs={"unit": "shard", "disable": None},
    )
    table, left_out = io.StringIO(), {}
    text_columns = _text_columns(next(iter(rows.values())))
    # Quotes keep a space at the beginning of a text, which some readers skip.
    writer = csv.writer(table, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow([*COLUMNS, *MEMBER, *text_columns])
    for (shard, clips), (members, reasons) in zip(shards, done):
        wav = f"$data_root/{os.path.basename(shard)}"
        left_out |= reasons
        for clip, row in clips:
            if clip in members:
                texts = [row[column] for column in text_columns]
                writer.writerow([clip, row["duration"], wav, *members[clip], *texts])
    if left_out:
        logger.warning(
            f"{manifest}: {len(left_out)} of {len(rows)} clips cannot be read and are left out: "
            + "; ".join(f"{clip}: {reason}" for clip, reason in left_out.items())
        )
    if len(left_out) == len(rows):
        raise ValueError(f"{manifest}: none of its clips can be read; set data_folder:")
    write_whole(path, table.getvalue())
    return path


def _text_columns(row: Iterable[str]) -> list[str]:
    return [column for column in row if column not in (*COLUMNS, *SEGMENT, *MEMBER)]


def _plan(rows: Mapping[str, dict[str, Any]], shard_bytes: int) -> list[Clips]:
    """The clips of each shard."""
    shards: list[Clips] = []
    room = 0
    for clip, row in rows.items():
        size = TAR_BYTES + _size(row)
        if not shards or size > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append((clip, row))
        room -= size
    return shards


def _size(row: Mapping[str, Any]) -> int:
    """The bytes of a clip. For a segment, which is not written yet: two per sample."""
    if row.get("start") is not None:
        return 2 * (row["stop"] - row["start"])
    if row.get("size") is not None:
        return row["size"]
    try:
        return os.path.getsize(row["wav"])
    except OSError:
        return 0  # it will be left out


def _claim_folder(folder: str | os.PathLike, name: str, shards: list[tuple[str, Clips]]) -> None:
    """Writes the plan into the folder, or refuses a folder with another plan."""
    clips_of = {os.path.basename(shard): clips for shard, clips in shards}
    digest = hashlib.sha256(json.dumps(clips_of).encode()).hexdigest()
    plan = {"clips": sum(len(clips) for _, clips in shards), "shards": len(shards)}
    plan = json.dumps({**plan, "sha256": digest}) + "\n"
    path = os.path.join(folder, f"{name}.plan.json")
    os.makedirs(folder, exist_ok=True)
    try:
        with open(path, encoding="utf-8") as file:
            found = file.read()
    except FileNotFoundError:
        found = None
    others = [
        entry for entry in os.listdir(folder)
        if entry == f"{name}.csv" or (entry.startswith(f"{name}-") and entry.endswith(".tar"))
    ]  # fmt: skip
    if found != plan and (found or others):
        raise ValueError(
            f"output_folder {folder} holds {', '.join(sorted(others)[:3]) or path} of another "
            f"manifest, data_folder or shard_bytes; give an empty folder"
        )
    write_whole(path, plan)


def _make_shard(job: tuple[str, Clips]) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Writes a shard unless it is complete. Returns its ``_members``, and reasons by ID."""
    path, clips = job
    members = _members(path)
    # Clips that are missing could not be read before. If one can be read now, the shard is not
    # complete.
    left_out = {clip: _fault(row) for clip, row in clips if clip not in members} if members else {}
    if not members or None in left_out.values():
        return _write_shard(path, clips)
    return members, {clip: reason for clip, reason in left_out.items() if reason}


def _members(path: str) -> dict[str, tuple[int, int]]:
    """Offset and size of each clip in a shard; {} if it does not exist or is damaged."""
    members = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, extension = member.name.split(".", 1)
                if extension != "json":
                    members[urllib.parse.unquote(key)] = (member.offset_data, member.size)
    except (OSError, tarfile.TarError):
        return {}
    return members


def _write_shard(path: str, clips: Clips) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    left_out = {}
    with open(path + ".part", "wb") as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for clip, row in clips:
                try:
                    extension, content = _read(row)
                except BadAudio as error:
                    left_out[clip] = str(error)
                    continue
                texts = {column: row[column] for column in _text_columns(row)}
                key = urllib.parse.quote(clip, safe="").replace(".", "%2E")
                columns = json.dumps({"ID": clip, "duration": row["duration"], **texts})
                _add(tar, f"{key}.{extension}", content)
                _add(tar, f"{key}.json", columns.encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".part", path)
    return _members(path), left_out


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a file to a tar; the same clips make the same bytes on every machine."""
    member = tarfile.TarInfo(name)  # its time is 0, its owner is root
    member.size, member.mode = len(content), 0o444
    tar.addfile(member, io.BytesIO(content))


def _fault(row: Mapping[str, Any]) -> str | None:
    """Why a clip cannot be read, or None."""
    try:
        _read(row)
    except BadAudio as error:
        return str(error)
    return None


def _read(row: Mapping[str, Any]) -> tuple[str, bytes]:
    """Extension and bytes of a clip. Only its header is checked; training checks the samples."""
    path, channel = row["wav"], row.get("channel")
    start, stop, offset, size = (row.get(key) for key in (*SEGMENT, *MEMBER))
    try:
        header = read_header(path, offset, size)
        first, last = check_clip(header, start=start, stop=stop, channel=channel, mix_down="first")
        check_duration((last - first) / header.sample_rate, row["duration"])
        if start is not None:
            return _cut(header, first, last)
        with open_file(path, pieces_of(offset, size)) as file:
            kind = kind_of(file)
        # From its content: the path may be that of a tar.
        extension = KINDS[kind].endings.split()[0][1:] if kind else header.format.lower()
        return extension, read_bytes(path, offset, size)
    except BadAudio as error:
        raise bad_clip(error, path, start, stop, channel, offset, size) from None


def _cut(header: Header, start: int, stop: int) -> tuple[str, bytes]:
    """Extension and bytes of a new file with the same samples as a segment."""
    fits = (
        header.subtype in FLAC_SUBTYPES
        and header.num_channels <= FLAC_CHANNELS
        and any(header.sample_rate in rates for rates in FLAC_RATES)
    )
    format, subtype = ("FLAC", header.subtype) if fits else ("WAV", "FLOAT")
    dtype: DType = FLAC_SUBTYPES[subtype] if fits else "float32"
    content = io.BytesIO()
    with soundfile.SoundFile(
        content, "w", header.sample_rate, header.num_channels, subtype, format=format
    ) as file:
        for block in read_samples(header, start, stop, dtype):
            file.write(block)
    return format.lower(), content.getvalue()
