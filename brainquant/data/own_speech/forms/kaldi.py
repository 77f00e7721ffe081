"""Kaldi's data folders: wav.scp, and beside it segments, utt2spk and text."""

import os
import re

from ...columns import fault_of_part
from ...tables import opened
from .rows import Found, Row, part_of, seconds_of

ARCHIVE = re.compile(r"\.ark(:[0-9]+)?(\[.*\])?$")


def read_rows(scp):
    """The clips of a data folder.

    Arguments
    ---------
    scp : str
        ``wav.scp``: an ID and the path of an audio file in each line. Where there are ``segments``
        beside it (ID, recording, start and end in seconds, and it may be a channel), they are the
        clips; ``utt2spk`` has their speakers, ``text`` a text.

    Returns
    -------
    Found

    Raises
    ------
    ValueError
        Where two lines of a file have the same ID.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "wav.scp").write_text("talk a.flac\\n")
    >>> _ = (folder / "segments").write_text("talk-1 talk 0.5 2\\n")
    >>> _ = (folder / "utt2spk").write_text("talk-1 anna\\n")
    >>> row = read_rows(str(folder / "wav.scp")).rows[0]
    >>> row.id, row.wav, row.start, row.stop, row.speaker
    ('talk-1', 'a.flac', Decimal('0.5'), Decimal('2'), 'anna')
    """
    folder = os.path.dirname(scp)
    files = [os.path.join(folder, name) for name in ("segments", "utt2spk", "text")]
    wavs, segments, speakers, texts = map(_read_pairs, [scp, *files])
    rows = []
    if segments is None:
        rows = [Row(f"{scp}, ID {name!r}", wav, name) for name, wav in wavs.items()]
    for name, fields in (segments or {}).items():
        recording, *part = fields.split()
        row = Row(f"{files[0]}, ID {name!r}", wavs.get(recording, ""), name)
        try:
            if recording not in wavs:
                raise ValueError(f"{os.path.basename(scp)} has no recording {recording!r}")
            _set_part(row, part)
        except ValueError as error:
            row.fault = str(error)
        rows.append(row)
    for row in rows:
        row.fault = row.fault or _fault(row.wav)
        row.speaker = (speakers or {}).get(row.id, "")
        row.more = {} if texts is None else {"text": texts.get(row.id, "")}
    there = [scp, *(file for file in files if os.path.isfile(file))]
    names = ", ".join(map(os.path.basename, there))
    return Found(rows, folder, there, f"read as Kaldi's, from {names}")


def _read_pairs(path):
    """What follows the first field of each line, by that field; None where there is no file."""
    if not os.path.isfile(path):
        return None
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


def _set_part(row, part):
    if len(part) not in (2, 3):
        raise ValueError(f"it has {len(part) + 2} fields, not ID, recording, start, end")
    start, end, *channel = part
    if end.startswith("-"):  # to the end of the recording
        row.start = seconds_of("start", start)
    else:
        row.start, row.stop = part_of("start", "end", start, end)
    if fault := fault_of_part({"channel": "".join(channel)}):
        raise ValueError(fault)
    row.channel = int(channel[0]) if channel else None


def _fault(wav):
    """What is wrong with what wav.scp has for a recording, or None."""
    if wav.endswith("|"):
        return (
            f"{wav!r} is a command, which is not run; write its output to a file, as Kaldi's "
            f"wav-copy does, and name that file"
        )
    if ARCHIVE.search(wav):
        return f"{wav!r} is in an archive; write it to a file, as Kaldi's wav-copy does"
    return None if wav else "it has no path"
