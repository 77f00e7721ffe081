"""Audio of one's own, a folder or a manifest, becomes a list of clips."""

import collections
import dataclasses
import hashlib
import os
import re

import soundfile

from .manifests import SEGMENT, WHOLE_NUMBER
from .tables import is_json, read_table

# A .raw file has no header; the names of some formats are not the endings of their files.
ENDINGS = {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"} | {
    ".aif", ".aifc", ".mp3", ".oga", ".opus", ".sph",
}  # fmt: skip
COLUMNS = ("ID", "duration", "wav", *SEGMENT, "spk_id")
MIN_SPEAKERS = 5  # subfolders that are taken for speakers
NUM_SHOWN = 3  # rows or endings in a message


@dataclasses.dataclass
class Clip:
    """A file, or a part of it.

    Arguments
    ---------
    id : str
        Its own, or made of its path.
    wav : str
        Absolute path.
    name : str
        The path as seen from the source: the same wherever the source has moved to.
    start, stop : int or None
        Samples of the file, at its own rate; None: all of it.
    speaker : str
        Or "".
    more : dict
        Text by further columns of the manifest.
    seconds : float
        Its duration, once the header of the file is read.
    """

    id: str
    wav: str
    name: str
    start: int | None = None
    stop: int | None = None
    speaker: str = ""
    more: dict = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    @property
    def row(self):
        """The values of ``COLUMNS``."""
        return self.id, self.seconds, self.wav, self.start, self.stop, self.speaker


@dataclasses.dataclass
class Source:
    """What is to be prepared.

    Arguments
    ---------
    clips : list of Clip
    state : str
        Another one where files were added, removed or changed in size, or the manifest changed.
    remark : str
        What a user should know about how it was read, or "".
    """

    clips: list
    state: str
    remark: str


def find_clips(path):
    """The clips of a folder or a manifest; no audio file is opened.

    Arguments
    ---------
    path : str
        A folder, which is searched through all folders below it for files with an ending that
        soundfile reads, without hidden ones; or a CSV or JSON file with a column ``wav``, whose
        paths are relative to its folder, or begin with ``$data_root`` for it (in JSON,
        ``{data_root}``).

    Returns
    -------
    Source

    Raises
    ------
    ValueError
        Where it is neither, has no audio, or the manifest is not right.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("a.b.wav", "notes.txt", ".hidden.wav"):
    ...     folder.joinpath(name).touch()
    >>> source = find_clips(str(folder))
    >>> [(clip.id, clip.name) for clip in source.clips], source.remark
    ([('a_b', 'a.b.wav')], 'not looked at: 1 .txt')
    """
    if os.path.isdir(path):
        return _read_folder(path)
    if not path.endswith((".csv", ".json")) or not os.path.isfile(path):
        what = "is neither" if os.path.exists(path) else "does not exist"
        raise ValueError(
            f"source must be a folder, or a manifest that ends with .csv or .json; {path} {what}; "
            f"set source: in your YAML"
        )
    return _read_manifest(path)


def _read_folder(folder):
    files, others, seen = [], collections.Counter(), set()
    for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # links can go round
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in sorted(names):
            ending = os.path.splitext(name)[1].lower()
            if name[0] == ".":
                continue
            if ending in ENDINGS:
                files.append(os.path.relpath(os.path.join(parent, name), folder))
            else:
                others[ending or "without an ending"] += 1
    counts = ", ".join(f"{count} {ending}" for ending, count in others.most_common(NUM_SHOWN))
    if not files:
        raise ValueError(
            f"source must have audio files in it, {folder} has {counts or 'no files'}; set source: "
            f"to another folder, or convert the files to FLAC"
        )
    remarks = [f"not looked at: {counts}"] if others else []
    speakers = {name.split(os.sep)[0] for name in files if os.sep in name}
    if len(speakers) < MIN_SPEAKERS:
        speakers = ()
    else:
        remarks.append(f"its {len(speakers)} subfolders are taken for speakers")
    clips, state = [], hashlib.blake2b(digest_size=16)
    for name in files:
        first, path = name.split(os.sep)[0], os.path.join(folder, name)
        speaker = first if first in speakers else ""
        clips.append(Clip(_make_id(name), path, name, speaker=speaker))
        state.update(f"{name}\0{_size(path)}\0".encode("utf-8", "surrogateescape"))
    return Source(clips, state.hexdigest(), "; ".join(remarks))


def _refuse(error):
    raise ValueError(
        f"the folder {error.filename} cannot be listed ({error.strerror}); allow it, or set "
        f"source: to another folder"
    )


def _size(path):
    try:
        return os.stat(path).st_size
    except OSError:  # a link to nothing
        return None


def _read_manifest(path):
    columns, table = read_table(path)
    if "wav" not in columns:
        raise ValueError(
            f"{path} lacks the column 'wav', it has {', '.join(columns) or 'none'}; add a column "
            f"with the path of each file"
        )
    folder = os.path.dirname(path)
    clips, faults, places = [], [], {}
    for place, row, fault in table:
        if fault := fault or _fault(row):
            faults.append(f"{place}: {fault}")
            continue
        data_root = "{data_root}" if is_json(path) else "$data_root"
        wav = os.path.normpath(os.path.join(folder, row["wav"].replace(data_root, folder)))
        name = os.path.relpath(wav, folder)
        start, stop = (int(text) if (text := row.get(key, "").strip()) else None for key in SEGMENT)
        first = places.setdefault((wav, start, stop), place)
        if first != place and "ID" not in columns:
            faults.append(f"{place}: the clip is that of {first} too")
        clips.append(
            Clip(
                row.get("ID", "").strip() or _make_id(name),
                wav,
                name,
                start,
                stop,
                row.get("spk_id", "").strip(),
                {column: row[column] for column in columns if column not in COLUMNS},
            )
        )
    if faults or not clips:
        raise ValueError(
            f"{path}: {len(faults)} of {len(table)} rows are not right"
            f"{'; '.join(['', *faults[:NUM_SHOWN]])}{'; ...' if len(faults) > NUM_SHOWN else ''}; "
            f"mend them or take them out"
        )
    with open(path, "rb") as file:
        state = hashlib.blake2b(file.read(), digest_size=16).hexdigest()
    return Source(clips, state, "")


def _fault(row):
    """What is wrong with a row of a manifest, or None."""
    if not row["wav"].strip():
        return "the column wav is empty"
    texts = [row.get(key, "").strip() for key in SEGMENT]
    if any(texts):
        if not all(WHOLE_NUMBER.fullmatch(text) for text in texts) or int(texts[0]) >= int(
            texts[1]
        ):
            return (
                f"the columns start and stop have {texts[0]!r} and {texts[1]!r}, not two whole "
                f"numbers of samples, the second greater"
            )
    return None


def _make_id(name):
    """An ID from a path: letters and digits of any language, underscores and hyphens.

    Example
    -------
    >>> _make_id("talks 2024/é, part 1.2.flac")
    'talks_2024-é_part_1_2'
    """
    parts = os.path.splitext(name)[0].split(os.sep)
    return (
        "-".join(filter(None, (re.sub(r"[^\w-]+", "_", part).strip("_") for part in parts))) or "_"
    )
