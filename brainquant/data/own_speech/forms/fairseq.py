"""fairseq's manifests of audio: a root, then a path and a number of samples in each line."""

import os

from ...tables import opened
from .rows import Found, Row


def is_fairseq(path):
    """Whether a TSV file has a line without tabs first, and a number in its second.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.tsv"
    >>> _ = path.write_text("/data\\na.flac\\t16000\\n")
    >>> is_fairseq(path)
    True
    """
    with opened(path) as file:
        first, second = (file.readline().rstrip("\r\n").split("\t") for _ in range(2))
    return len(first) == 1 and len(second) == 2 and second[1].strip().isdecimal()


def read_rows(path):
    """The clips of such a file; how many samples they have is measured anew.

    Arguments
    ---------
    path : str

    Returns
    -------
    Found

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.tsv"
    >>> _ = path.write_text("/data\\nb/a.flac\\t16000\\n")
    >>> found = read_rows(path)
    >>> found.folder, found.rows[0].wav
    ('/data', 'b/a.flac')
    """
    with opened(path) as file:
        root, *lines = file.read().splitlines()
    rows = []
    for number, line in enumerate(lines, 2):
        wav, *others = line.split("\t")
        if line.strip():
            fault = None if len(others) == 1 else f"it has {len(others) + 1} fields, not two"
            rows.append(Row(f"line {number}", wav, fault=fault))
    return Found(rows, os.path.join(os.path.dirname(path), root), [path])
