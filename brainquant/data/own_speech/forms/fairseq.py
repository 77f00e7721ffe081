"""fairseq's manifests: a root folder, then a path and a number of samples in each line."""

import os

from ...tables import opened
from ..clips import Clip
from .found import Found


def is_fairseq(path: str) -> bool:
    """Whether the first line of a TSV file has no tabs, and the second one ends with a number."""
    with opened(path) as file:
        first, second = (file.readline().rstrip("\r\n").split("\t") for _ in range(2))
    return len(first) == 1 and len(second) == 2 and second[1].strip().isdecimal()


def read_rows(path: str) -> Found:
    """The clips of such a file. Their numbers of samples are not used, but measured again.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.tsv"
    >>> _ = path.write_text("/data\\nb/a.flac\\t16000\\n")
    >>> found = read_rows(path)
    >>> is_fairseq(path), found.folder, found.clips[0].wav
    (True, '/data', 'b/a.flac')
    """
    with opened(path) as file:
        root, *lines = file.read().splitlines()
    clips = []
    for number, line in enumerate(lines, 2):
        wav, *others = line.split("\t")
        if line.strip():
            fault = None if len(others) == 1 else f"it has {len(others) + 1} fields, not two"
            clips.append(Clip("", wav, location=f"line {number}", fault=fault))
    return Found(clips, os.path.join(os.path.dirname(path), root), [path])
