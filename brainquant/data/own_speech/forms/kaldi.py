"""Kaldi's data folders: wav.scp, and beside it segments, utt2spk and text."""

import os
import re

from ...columns import fault_of_part
from ...tables import opened
from ..clips import Clip
from .found import Found, part_of, seconds_of

ARCHIVE = re.compile(r"\.ark(:[0-9]+)?(\[.*\])?$")


def read_rows(scp: str) -> Found:
    """The clips of a data folder.

    ``wav.scp`` has an ID and the path of an audio file in each line. If ``segments`` is beside it
    (ID, recording, start and end in seconds, perhaps a channel), the segments are the clips.
    ``utt2spk`` has the speakers, ``text`` the texts.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "wav.scp").write_text("talk a.flac\\n")
    >>> _ = (folder / "segments").write_text("talk-1 talk 0.5 2\\n")
    >>> _ = (folder / "utt2spk").write_text("talk-1 anna\\n")
    >>> clip = read_rows(str(folder / "wav.scp")).clips[0]
    >>> clip.id, clip.wav, clip.start, clip.stop, clip.speaker
    ('talk-1', 'a.flac', Decimal('0.5'), Decimal('2'), 'anna')
    """
    folder = os.path.dirname(scp)
    files = [os.path.join(folder, name) for name in ("segments", "utt2spk", "text")]
    there = [scp, *(file for file in files if os.path.isfile(file))]
    pairs = {os.path.basename(file): _read_pairs(file) for file in there}
    wavs = pairs[os.path.basename(scp)]
    if "segments" not in pairs:
        clips = [Clip(name, wav, location=f"{scp}, ID {name!r}") for name, wav in wavs.items()]
    else:
        clips = [_segment(scp, files[0], wavs, *pair) for pair in pairs["segments"].items()]
    for clip in clips:
        clip.fault = clip.fault or _fault(clip.wav)
        clip.speaker = pairs.get("utt2spk", {}).get(clip.id, "")
        clip.more = {"text": pairs["text"].get(clip.id, "")} if "text" in pairs else {}
    names = ", ".join(map(os.path.basename, there))
    return Found(clips, folder, there, f"read as Kaldi's, from {names}")


def _read_pairs(path: str) -> dict[str, str]:
    """The rest of each line by its first field."""
    pairs = {}
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            name, *rest = line.split(maxsplit=1)
            if name in pairs:
                raise ValueError(
                    f"{path}, line {number}: the ID {name!r} is there already; keep one"
                )
            pairs[name] = rest[0].strip() if rest else ""
    return pairs


def _segment(scp: str, segments: str, wavs: dict[str, str], name: str, text: str) -> Clip:
    """The clip of a line of ``segments``."""
    recording, *part = text.split()
    clip = Clip(name, wavs.get(recording, ""), location=f"{segments}, ID {name!r}")
    try:
        if recording not in wavs:
            raise ValueError(f"{os.path.basename(scp)} has no recording {recording!r}")
        if len(part) not in (2, 3):
            raise ValueError(f"it has {len(part) + 2} fields, not ID, recording, start, end")
        start, end, *channel = part
        if end.startswith("-"):  # to the end of the recording
            clip.start = seconds_of("start", start)
        else:
            clip.start, clip.stop = part_of("start", "end", start, end)
        if fault := fault_of_part({"channel": "".join(channel)}):
            raise ValueError(fault)
        clip.channel = int(channel[0]) if channel else None
    except ValueError as error:
        clip.fault = str(error)
    return clip


def _fault(wav: str) -> str | None:
    """Why the text of wav.scp for a recording is not a usable path, or None."""
    if wav.endswith("|"):
        return (
            f"{wav!r} is a command, which is not run; write its output to a file, as Kaldi's "
            f"wav-copy does, and name that file"
        )
    if ARCHIVE.search(wav):
        return f"{wav!r} is in an archive; write it to a file, as Kaldi's wav-copy does"
    return None if wav else "it has no path"
