"""Audio of one's own, a folder or a manifest, becomes a list of clips."""

import dataclasses
import hashlib
import os

from ..file_names import FileNames
from ..tables import KINDS, kind_of, read_objects, replace_root
from .clips import Clip, make_id
from .folders import find_speakers, list_audio
from .forms import fairseq, kaldi, lhotse, table

NUM_SHOWN = 3  # rows or endings in a message


@dataclasses.dataclass
class Source:
    """What is to be prepared.

    Arguments
    ---------
    clips : list of Clip
    state : str
        Changes when files are added, removed or resized, or when the manifest changes.
    remark : str
        What a user should know about how it was read, or "".
    warning : str
        What a user has to know, or "".
    left_out : dict
        Why a folder, or a file of audio, is not among the clips, by its path.
    """

    clips: list
    state: str
    remark: str = ""
    warning: str = ""
    left_out: dict = dataclasses.field(default_factory=dict)


def find_clips(path, speaker_level=None):
    """The clips of a folder or a manifest; no audio file is opened.

    Arguments
    ---------
    path : str
        A folder, which is searched through all folders below it for files with an ending that can
        be read, without hidden ones; or a manifest in one of the forms that the README of
        recipes/OwnSpeech lists, whose paths are relative to its folder, or begin with
        ``$data_root`` or ``{data_root}`` for it.
    speaker_level : int or None
        Which folders below a folder are speakers, see ``find_speakers``.

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
        scp = os.path.join(path, "wav.scp")
        if os.path.isfile(scp):
            return _clips_of(scp, kaldi.read_rows(scp))
        return _read_folder(path, speaker_level)
    return _clips_of(path, _read_manifest(path))


def _read_manifest(path):
    """The rows of a manifest, by the form that it has."""
    kind = kind_of(path)
    if not os.path.isfile(path) or kind not in (*KINDS, ".scp"):
        what = "is none of these" if os.path.exists(path) else "does not exist"
        raise ValueError(
            f"source must be a folder, or a manifest that ends with {', '.join(KINDS)} (each also "
            f"with .gz behind it) or .scp; {path} {what}; set source: in your YAML. The simplest "
            f"manifest is a .csv file with {table.EXAMPLES['.csv']}"
        )
    if kind == ".scp":
        return kaldi.read_rows(path)
    if kind == ".tsv" and fairseq.is_fairseq(path):
        return fairseq.read_rows(path)
    objects = read_objects(path) if kind in (".json", ".jsonl") else None
    if objects and lhotse.is_lhotse(objects[0][2]):
        return lhotse.read_rows(path, objects)
    return table.read_rows(path, objects)


def _read_folder(folder, speaker_level):
    listing = list_audio(folder)
    if not listing.files:
        found = "; ".join(filter(None, [listing.warning, listing.others])) or "no files"
        raise ValueError(
            f"source must have audio files in it, {folder} has {found}; set source: to another "
            f"folder, or convert the files to FLAC"
        )
    speakers, remark = find_speakers(listing.files, folder, speaker_level)
    others = f"not looked at: {listing.others}" if listing.others else ""
    clips, state = [], hashlib.blake2b(digest_size=16)
    for name, speaker in zip(listing.files, speakers):
        path = os.path.join(folder, name)
        clips.append(Clip(make_id(name), path, name, speaker=speaker))
        state.update(f"{name}\0{_size(path)}\0".encode("utf-8", "surrogateescape"))
    for path in listing.left_out:
        state.update(f"{path}\0".encode("utf-8", "surrogateescape"))
    remark = "; ".join(filter(None, [others, remark]))
    return Source(clips, state.hexdigest(), remark, listing.warning, listing.left_out)


def _size(path):
    try:
        return os.stat(path).st_size
    except OSError:  # a broken link
        return None


def _clips_of(path, found):
    """The clips of a manifest in any form: paths become absolute, duplicates are faults."""
    root, names, clips, faults = os.path.dirname(path), FileNames(), [], []
    ids, places, prefix = {}, {}, os.path.join(os.path.normpath(found.folder), "")
    for row in found.rows:
        if row.fault:
            faults.append(f"{row.place}: {row.fault}")
            continue
        wav = replace_root(row.wav, root)
        wav = names.find(os.path.normpath(os.path.join(found.folder, wav)))
        name = wav.removeprefix(prefix)
        if name == wav:
            name = os.path.relpath(wav, found.folder)
        clip = Clip(
            row.id or make_id(name),
            wav,
            name,
            row.start,
            row.stop,
            row.channel,
            row.speaker,
            row.more,
        )
        clips.append(clip)
        if row.id and (first := ids.setdefault(row.id, row.place)) != row.place:
            faults.append(f"{row.place}: the ID is that of {first} too")
        elif (first := places.setdefault(clip.place, row.place)) != row.place:
            faults.append(f"{row.place}: the clip is that of {first} too")
    if not found.rows:
        raise ValueError(f"{path} has no rows: add a line for each audio file")
    if faults:
        raise ValueError(
            f"{path}: {len(faults)} of {len(found.rows)} rows are not right"
            f"{'; '.join(['', *faults[:NUM_SHOWN]])}{'; ...' if len(faults) > NUM_SHOWN else ''}; "
            f"mend them or take them out"
        )
    state = hashlib.blake2b(digest_size=16)
    for file in found.files:
        with open(file, "rb") as opened:
            state.update(opened.read())
    return Source(clips, state.hexdigest(), found.remark)
