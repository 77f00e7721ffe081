"""The kind of a file, by its first bytes: its name is often wrong."""

import os
from typing import BinaryIO, NamedTuple

HEAD = 512  # bytes that are examined
TEXT = {*range(32, 127), *b"\t\n\r"}


class Kind(NamedTuple):
    """A kind of file that is found among audio."""

    words: str  # for messages
    endings: str = ""  # of file names
    decoder: str = ""  # "sndfile", "ffmpeg", or "" if it is not audio


KINDS = {
    "FLAC": Kind("a FLAC file", ".flac .fla", "sndfile"),
    "WAV": Kind("a WAV file", ".wav .wave .bwf", "sndfile"),
    "Ogg": Kind("an Ogg file", ".ogg .oga .opus .spx", "sndfile"),
    "MP3": Kind("an MP3 file", ".mp3 .mp2 .mp1 .mpga", "sndfile"),
    "AIFF": Kind("an AIFF file", ".aif .aiff .aifc", "sndfile"),
    "AU": Kind("an AU file", ".au .snd", "sndfile"),
    "CAF": Kind("a CAF file", ".caf", "sndfile"),
    "NIST": Kind("a NIST SPHERE file", ".sph .nist .wav", "sndfile"),
    "MPEG-4": Kind("an MPEG-4 file", ".m4a .mp4 .m4b .3gp", "ffmpeg"),
    "WebM": Kind("a WebM or Matroska file", ".webm .mka", "ffmpeg"),
    "AAC": Kind("an AAC file", ".aac", "ffmpeg"),
    "AMR": Kind("an AMR file", ".amr .awb", "ffmpeg"),
    "Windows Media": Kind("a Windows Media file", ".wma", "ffmpeg"),
    "WavPack": Kind("a WavPack file", ".wv", "ffmpeg"),
    "Git LFS": Kind("a pointer of Git LFS, fetch the file with git lfs pull"),
    "HTML": Kind("an HTML page"),
    "text": Kind("text"),
    "MIDI": Kind("a MIDI file"),
    "zip": Kind("a zip archive"),
    "gzip": Kind("a gzip archive"),
    "PDF": Kind("a PDF file"),
    "picture": Kind("a picture"),
}
MAGIC = (
    (0, b"fLaC", "FLAC"), (0, b"RIFF", "WAV"), (0, b"RF64", "WAV"), (0, b"OggS", "Ogg"),
    (0, b"FORM", "AIFF"), (0, b".snd", "AU"), (0, b"caff", "CAF"), (4, b"ftyp", "MPEG-4"),
    (0, b"NIST_1A", "NIST"),  # its first 1024 bytes are text
    (0, b"\x1a\x45\xdf\xa3", "WebM"), (0, b"#!AMR", "AMR"), (0, b"wvpk", "WavPack"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media"), (0, b"MThd", "MIDI"),
    (0, b"version https://git-lfs", "Git LFS"), (0, b"PK\x03\x04", "zip"), (0, b"%PDF", "PDF"),
    (0, b"\x1f\x8b", "gzip"), (0, b"\x89PNG", "picture"), (0, b"\xff\xd8\xff", "picture"),
)  # fmt: skip


def kind_of(file: BinaryIO) -> str:
    """The key of ``KINDS`` that fits the first bytes of a file, or "" if none does.

    Example
    -------
    >>> import io
    >>> kind_of(io.BytesIO(b"RIFF....WAVEfmt ")), kind_of(io.BytesIO(b"<!DOCTYPE html>"))
    ('WAV', 'HTML')
    """
    file.seek(0)
    head = file.read(HEAD)
    if head[:3] == b"ID3":
        file.seek(id3_size(head))
        head = file.read(HEAD)
        if head[:3] != b"fLa" and (not head or head[0] != 0xFF):
            return "MP3"  # its tag may be longer than it says
    for offset, magic, kind in MAGIC:
        if head.startswith(magic, offset):
            return kind
    if len(head) > 1 and head[0] == 0xFF and head[1] >> 5 == 7:
        return "MP3" if head[1] >> 1 & 3 else "AAC"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "HTML"
    return "text" if head and TEXT.issuperset(head) else ""


def describe(kind: str, path: str | os.PathLike = "") -> str:
    """A kind in words, with the ending of the path if that belongs to another kind.

    Example
    -------
    >>> describe("MPEG-4", "a.mp3"), describe("MPEG-4", "a.m4a")
    ('an MPEG-4 file named .mp3', 'an MPEG-4 file')
    """
    words, endings, _ = KINDS.get(kind, Kind("of an unknown kind"))
    ending = os.path.splitext(path)[1].lower()
    return words if ending in ("", *endings.split()) else f"{words} named {ending}"


def id3_size(head: bytes) -> int:
    """The size of an ID3v2 tag in bytes, by its first ten bytes."""
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 127
    return size + (20 if head[5] & 16 else 10)
