"""A folder of audio: which files it has, and which of its folders are speakers."""

import collections
import dataclasses
import os
import re

import soundfile

from ..audio.decoders import EXTRA, import_av
from ..audio.headers import decoder_endings
from ..tables import NUM_SHOWN, first_few

# Endings that soundfile reads. A .raw file has no header; some formats have other endings.
ENDINGS = {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"} | {
    ".aif", ".aifc", ".mp2", ".mp3", ".oga", ".opus", ".sph",
}  # fmt: skip
# Endings of audio, and of video with audio, that soundfile does not read
AUDIO = {
    ".3ga", ".3gp", ".aac", ".ac3", ".alac", ".amr", ".ape", ".avi", ".awb", ".dsf", ".dts", ".flv",
    ".gsm", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp4", ".mpc", ".mpeg",
    ".mpg", ".ra", ".raw", ".shn", ".spx", ".tta", ".vox", ".webm", ".weba", ".wma", ".wmv", ".wv",
}  # fmt: skip
MIN_SPEAKERS = 5  # a level with fewer folders is not used as speakers
# Names of folders for parts of a corpus, kinds of files, versions and dates, not for speakers. A
# year alone is not among them: LibriSpeech's speakers are numbers, too.
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
    """The content of a folder."""

    files: list[str]  # audio that can be read, by its ending: paths relative to the folder
    left_out: dict[str, str]  # why a file of audio cannot be read, or a folder listed, by its path
    warning: str  # the same in one line for the user, or ""
    others: str  # how many other files there are, by their endings


def list_audio(folder: str) -> Listing:
    """Lists the audio of a folder and of all folders below it by endings, without hidden files.

    A ValueError is raised if the folder itself cannot be listed.

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
    unlisted = []  # folders

    def leave_out(error: OSError) -> None:
        if os.path.abspath(error.filename) == os.path.abspath(folder):
            raise ValueError(
                f"the folder {folder} cannot be listed ({error.strerror}); change its permissions, "
                f"or give another folder"
            )
        left_out[error.filename] = f"cannot be listed ({error.strerror})"
        unlisted.append(f"{error.filename} {left_out[error.filename]}")

    for parent, folders, names in os.walk(folder, onerror=leave_out, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # links can form a loop
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in sorted(names):
            ending = os.path.splitext(name)[1].lower()
            if name[0] == ".":
                continue
            path = os.path.join(parent, name)
            if ending in readable:
                files.append(path.removeprefix(os.path.join(folder, "")))
            elif ending in AUDIO or ending in decoded:
                unreadable[ending] += 1
                left_out[path] = f"has an ending that cannot be read, {ending}" + (
                    f"; {EXTRA}" if ending in decoded else ""
                )
            else:
                others[ending or "without an ending"] += 1
    texts, num_bad = [], unreadable.total()
    if num_bad:
        texts.append(
            f"{num_bad} of {len(files) + num_bad} audio files have an ending that cannot be read: "
            f"{_counts(unreadable)}"
        )
    if needed := decoded & {*unreadable}:
        texts.append(f"{EXTRA}, which reads {', '.join(sorted(needed))}")
    if unlisted:
        texts.append(
            f"{len(unlisted)} of its folders cannot be listed: {first_few(unlisted, ', ')}"
        )
    return Listing(files, left_out, "; ".join(texts), _counts(others))


def _counts(endings: collections.Counter[str]) -> str:
    return ", ".join(f"{count} {ending}" for ending, count in endings.most_common(NUM_SHOWN))


def find_speakers(files: list[str], folder: str, level: int | None = None) -> tuple[list[str], str]:
    """The speaker of each file or "", and a remark about the folders that are speakers.

    ``files`` are paths relative to the folder. Speakers are the folders ``level`` levels below it;
    0: there are none. None: the folders of the first level whose names do not mean something else
    (``train-clean-100``, ``dev``, ``wav``, ``v1.0``), if it has at least 5 folders. A ValueError is
    raised if there are no folders at this level.

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
            "no level of its folders is used as speakers; speaker_level: 1 would use the first, "
            f"such as {next(part[0] for part in parts if part)}"
        )
    speakers = [part[level - 1] if len(part) >= level else "" for part in parts]
    example = os.sep.join(next(part for part in parts if len(part) >= level)[:level])
    return speakers, (
        f"its {len({*speakers} - {''})} folders of level {level}, such as {example}, are used as "
        f"speakers; speaker_level: names another level, 0 none"
    )


def _level_of_speakers(parts: list[list[str]], depth: int) -> int:
    """The first level where most names may be speakers, if it has enough folders; else 0."""
    for level in range(depth):
        names = {part[level] for part in parts if len(part) > level}
        if 2 * sum(NO_SPEAKER.fullmatch(name) is None for name in names) > len(names):
            return level + 1 if len(names) >= MIN_SPEAKERS else 0
    return 0
