"""A folder of audio, or a manifest in any form, becomes a list of clips."""

import dataclasses
import hashlib
import os

from ..file_names import FileNames
from ..tables import ENDINGS, ending_of, read_objects, refuse_faults, replace_root
from .clips import Clip, make_id
from .folders import find_speakers, list_audio
from .forms import fairseq, kaldi, lhotse, table
from .forms.found import Found


@dataclasses.dataclass
class Source:
    """The audio to prepare."""

    clips: list[Clip]
    state: str  # changes when files are added, removed or resized, or the manifest changes
    remark: str = ""  # how it was read, for the user
    warning: str = ""  # what the user must know
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)  # reason by path


def find_clips(
    path: str, speaker_level: int | None = None, *, data_folder: str | None = None
) -> Source:
    """The clips of a folder or a manifest; no audio file is opened.

    A folder is searched with all folders below it for files with an ending that can be read,
    without hidden ones; ``find_speakers`` explains ``speaker_level``. A manifest has one of the
    forms that the README of recipes/OwnSpeech lists; its paths are relative to its folder, or begin
    with ``$data_root`` or ``{data_root}`` for it, or for ``data_folder``. A ValueError is raised if
    the path is neither, has no audio, or the manifest is not right.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("a.b.wav", "notes.txt", ".hidden.wav"):
    ...     folder.joinpath(name).touch()
    >>> source = find_clips(str(folder))
    >>> [(clip.id, clip.name) for clip in source.clips], source.remark
    ([('a_b', 'a.b.wav')], 'ignored: 1 .txt')
    """
    if os.path.isdir(path):
        scp = os.path.join(path, "wav.scp")
        if os.path.isfile(scp):
            return _complete(scp, kaldi.read_rows(scp))
        return _read_folder(path, speaker_level)
    return _complete(path, _read_manifest(path), data_folder)


def _read_manifest(path: str) -> Found:
    """The rows of a manifest, whatever its form."""
    ending = ending_of(path)
    if not os.path.isfile(path) or ending not in (*ENDINGS, ".scp"):
        what = "is none of these" if os.path.exists(path) else "does not exist"
        raise ValueError(
            f"source must be a folder, or a manifest that ends with {', '.join(ENDINGS)} (each "
            f"also with .gz after it) or .scp; {path} {what}. The simplest manifest is a .csv file "
            f"with {table.EXAMPLES['.csv']}"
        )
    if ending == ".scp":
        return kaldi.read_rows(path)
    if ending == ".tsv" and fairseq.is_fairseq(path):
        return fairseq.read_rows(path)
    objects = read_objects(path) if ending in (".json", ".jsonl") else None
    if objects and lhotse.is_lhotse(objects[0][2]):
        return lhotse.read_rows(path, objects)
    return table.read_rows(path, objects)


def _read_folder(folder: str, speaker_level: int | None) -> Source:
    listing = list_audio(folder)
    if not listing.files:
        found = "; ".join(filter(None, [listing.warning, listing.others])) or "no files"
        raise ValueError(
            f"source must have audio files in it, {folder} has {found}; give another "
            f"folder, or convert the files to FLAC"
        )
    speakers, remark = find_speakers(listing.files, folder, speaker_level)
    others = f"ignored: {listing.others}" if listing.others else ""
    clips, state = [], hashlib.blake2b(digest_size=16)
    for name, speaker in zip(listing.files, speakers):
        path = os.path.join(folder, name)
        clips.append(Clip(make_id(name), path, name, speaker=speaker))
        state.update(f"{name}\0{_size(path)}\0".encode("utf-8", "surrogateescape"))
    for path in listing.left_out:
        state.update(f"{path}\0".encode("utf-8", "surrogateescape"))
    remark = "; ".join(filter(None, [others, remark]))
    return Source(clips, state.hexdigest(), remark, listing.warning, listing.left_out)


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:  # a broken link
        return None


def _complete(path: str, found: Found, data_folder: str | None = None) -> Source:
    """Makes the paths of a manifest absolute, adds names and IDs, and refuses doubled clips."""
    root = os.path.dirname(path) if data_folder is None else os.path.abspath(data_folder)
    names, prefix = FileNames(), os.path.normpath(found.folder)
    faults, ids, parts = [], {}, {}
    for clip in found.clips:
        if clip.fault:
            faults.append(f"{clip.location}: {clip.fault}")
            continue
        wav = os.path.join(found.folder, replace_root(clip.wav, root))
        clip.wav = names.find(os.path.normpath(wav))
        clip.name = clip.wav.removeprefix(os.path.join(prefix, ""))
        if clip.name == clip.wav:
            clip.name = os.path.relpath(clip.wav, found.folder)
        if clip.id and (first := ids.setdefault(clip.id, clip.location)) != clip.location:
            faults.append(f"{clip.location}: {first} has the same ID")
        elif (first := parts.setdefault(clip.part, clip.location)) != clip.location:
            faults.append(f"{clip.location}: {first} has the same clip")
        clip.id = clip.id or make_id(clip.name)
    refuse_faults(path, faults, len(found.clips))
    state = hashlib.blake2b(digest_size=16)
    for file in found.files:
        with open(file, "rb") as opened:
            state.update(opened.read())
    return Source(found.clips, state.hexdigest(), found.remark)
