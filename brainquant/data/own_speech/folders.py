"""A folder of audio of one's own: which files it has, and which of its folders are speakers."""

import collections
import dataclasses
import os
import re

import soundfile

from ..audio.decoders import EXTRA, import_av
from ..audio.headers import decoder_endings

# A .raw file has no header; the names of some formats are not the endings of their files.
ENDINGS = {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"} | {
    ".aif", ".aifc", ".mp2", ".mp3", ".oga", ".opus", ".sph",
}  # fmt: skip
# Audio, and video with it, that soundfile does not read.
AUDIO = {
    ".3ga", ".3gp", ".aac", ".ac3", ".alac", ".amr", ".ape", ".avi", ".awb", ".dsf", ".dts", ".flv",
    ".gsm", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp4", ".mpc", ".mpeg",
    ".mpg", ".ra", ".raw", ".shn", ".spx", ".tta", ".vox", ".webm", ".weba", ".wma", ".wmv", ".wv",
}  # fmt: skip
MIN_SPEAKERS = 5  # folders of one level that are taken for speakers
NUM_SHOWN = 3  # endings or folders in a message
# Names of folders that divide a corpus by part, kind of file, version or date, not by speaker. A
# bare year is not among them: LibriSpeech's speakers are numbers, too.
NO_SPEAKER = re.compile(
    r"(train|training|dev|devel|development|valid|validation|validated|val|test|testing|eval|"
    r"evaluation|unlabell?ed)([-_. ]?(clean|other|all|full|set|data|audio|wavs?|small|medium|large|"
    r"[0-9]+h?))*"
    r"|(audios?|wavs?|waves?|flacs?|mp3s?|ogg|opus|clips|sounds?|recordings|data|corpus)"
    r"([-_. ]?([0-9]+(k|khz|hz)?|mono|raw|silence|trimmed))*"
    r"|(v|ver|version|release|r)?[-_. ]?[0-9]+([._][0-9]+)+|(v|ver|version|release)[-_. ]?[0-9]+"
    r"|(19|20)[0-9]{2}([-_][0-9]{1,2}){1,2}",
    re.IGNORECASE,
)


@dataclasses.dataclass
class Listing:
    """What a folder has in it.

    Arguments
    ---------
    files : list of str
        Audio that can be read, by its ending: paths from the folder.
    left_out : dict
        Why a file of audio cannot be read, by its path, or what is in a folder.
    warning : str
        The same in a line for people, or "".
    others : str
        Which further files there are, by their endings, or "".
    """

    files: list
    left_out: dict
    warning: str
    others: str


def list_audio(folder):
    """Lists the audio of a folder and of all below it, without hidden ones, by endings.

    Arguments
    ---------
    folder : str

    Returns
    -------
    Listing

    Raises
    ------
    ValueError
        Where the folder itself cannot be listed.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("a.b.WAV", "c.ape", "notes.txt", ".hidden.wav"):
    ...     folder.joinpath(name).touch()
    >>> listing = list_audio(str(folder))
    >>> listing.files, listing.warning
    (['a.b.WAV'], '1 of 2 audio files have an ending that cannot be read: 1 .ape')
    """
    files, left_out, seen = [], {}, set()
    unreadable, others = collections.Counter(), collections.Counter()
    decoded = decoder_endings()
    readable = ENDINGS | (decoded if import_av() else set())

    def leave_out(error):
        if os.path.abspath(error.filename) == os.path.abspath(folder):
            raise ValueError(
                f"the folder {folder} cannot be listed ({error.strerror}); allow it, or set "
                f"source: to another folder"
            )
        left_out[error.filename] = f"cannot be listed ({error.strerror})"

    for parent, folders, names in os.walk(folder, onerror=leave_out, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # links can form a loop
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name[0] != ".")
        below = os.path.relpath(parent, folder)
        for name in sorted(names):
            ending = os.path.splitext(name)[1].lower()
            if name[0] == ".":
                continue
            path = os.path.join(parent, name)
            if ending in readable:
                files.append(name if below == os.curdir else os.path.join(below, name))
            elif ending in AUDIO or ending in decoded:
                unreadable[ending] += 1
                left_out[path] = f"has an ending that cannot be read, {ending}" + (
                    f"; {EXTRA}" if ending in decoded else ""
                )
            else:
                others[ending or "without an ending"] += 1
    return Listing(files, left_out, _warning(len(files), left_out, unreadable), _counts(others))


def _counts(endings):
    return ", ".join(f"{count} {ending}" for ending, count in endings.most_common(NUM_SHOWN))


def _warning(num_files, left_out, unreadable):
    """What of a folder cannot be read, in a line for people."""
    texts, num_bad = [], unreadable.total()
    if num_bad:
        texts.append(
            f"{num_bad} of {num_files + num_bad} audio files have an ending that cannot be read: "
            f"{_counts(unreadable)}"
        )
        if decoded := decoder_endings() & {*unreadable}:
            texts.append(f"{EXTRA}, which reads {', '.join(sorted(decoded))}")
    if len(left_out) > num_bad:
        folders = [
            path for path, reason in left_out.items() if reason.startswith("cannot be listed")
        ]
        shown = ", ".join(f"{path} {left_out[path]}" for path in folders[:NUM_SHOWN])
        texts.append(
            f"{len(folders)} of its folders cannot be listed: {shown}"
            f"{', ...' if len(folders) > NUM_SHOWN else ''}"
        )
    return "; ".join(texts)


def find_speakers(files, folder, level=None):
    """Which folders are speakers.

    Arguments
    ---------
    files : list of str
        Paths from the folder.
    folder : str
        For messages.
    level : int or None
        Speakers are the folders so many levels below the folder; 0: there are none. None: those of
        the first level whose names do not say something else (``train-clean-100``, ``dev``,
        ``wav``, ``v1.0``), where it has at least 5.

    Returns
    -------
    speakers : list of str
        One for each file, or "".
    remark : str
        Which level was taken, with an example; "" where there are no folders.

    Raises
    ------
    ValueError
        Where there are no folders at this level.

    Example
    -------
    >>> find_speakers([f"train/{name}/1.wav" for name in "abcde"] + ["a.wav"], "corpus")[0]
    ['a', 'b', 'c', 'd', 'e', '']
    """
    parts = [file.split(os.sep)[:-1] for file in files]
    depth = max(map(len, parts), default=0)
    if level is None:
        level = _level_of_speakers(parts, depth)
    elif level > depth:
        raise ValueError(
            f"speaker_level is {level}, but the audio files of {folder} are at most {depth} "
            f"folders deep, as {max(files, key=lambda file: file.count(os.sep))}; set "
            f"speaker_level: to less, or to null"
        )
    if not depth:
        return [""] * len(files), ""
    if not level:
        return [""] * len(files), (
            "no level of its folders is taken for speakers; speaker_level: 1 would take the first, "
            f"such as {next(part[0] for part in parts if part)}"
        )
    speakers = [part[level - 1] if len(part) >= level else "" for part in parts]
    example = os.sep.join(next(part for part in parts if len(part) >= level)[:level])
    return speakers, (
        f"its {len({*speakers} - {''})} folders of level {level}, such as {example}, are taken for "
        f"speakers; speaker_level: names another level, 0 none"
    )


def _level_of_speakers(parts, depth):
    """The first level that most names of folders allow, where it has enough of them; else 0."""
    for level in range(depth):
        names = {part[level] for part in parts if len(part) > level}
        if 2 * sum(NO_SPEAKER.fullmatch(name) is None for name in names) > len(names):
            return level + 1 if len(names) >= MIN_SPEAKERS else 0
    return 0
