"""Alignments: the phones of an utterance and their times, one tab-separated file per utterance."""

import os
from collections.abc import Sequence

import numpy as np

HEADER = "start\tend\tphone"

Phone = tuple[float, float, str]  # start and end in seconds, and the name


def read_alignment(path: str | os.PathLike) -> list[Phone]:
    """Reads the phones of one utterance.

    Arguments
    ---------
    path : str or os.PathLike
        A file with the header "start<TAB>end<TAB>phone" and one phone per line, times in seconds.
        Further columns, such as the word, are not used.

    Returns
    -------
    list of tuple
        (start, end, phone), as float, float, str.

    Raises
    ------
    ValueError
        If the file is not such a table.

    Example
    -------
    >>> path = getfixture("tmpdir").join("a.tsv")
    >>> path.write("start\\tend\\tphone\\n0.0\\t0.25\\tSIL\\n0.25\\t0.3125\\ts\\n")
    >>> read_alignment(path)
    [(0.0, 0.25, 'SIL'), (0.25, 0.3125, 's')]
    """
    with open(path, encoding="utf-8") as file:
        header, *lines = file.read().splitlines() or [""]
    try:
        if f"{header}\t".startswith(f"{HEADER}\t"):
            rows = [line.split("\t") for line in lines]
            return [(float(start), float(end), phone) for start, end, phone, *_ in rows]
        raise ValueError(header)
    except ValueError as error:
        raise ValueError(
            f"an alignment must have the header {HEADER!r} and those three columns first, got "
            f"{path}; mend the file, or delete it and prepare the corpus again"
        ) from error


def find_alignments(folder: str | os.PathLike) -> dict[str, str]:
    """The paths of all alignments ``<ID>.tsv`` in a folder and the folders below it, by ID.

    A ValueError is raised if there are none, or two of the same ID.
    """
    paths: dict[str, str] = {}
    for parent, _, files in os.walk(folder, followlinks=True):
        for name in files:
            utterance, ending = os.path.splitext(name)
            path = os.path.join(parent, name)
            if ending == ".tsv" and (other := paths.setdefault(utterance, path)) != path:
                raise ValueError(
                    f"alignments: {other} and {path} have the same ID; give a folder that has only "
                    f"one of them"
                )
    if not paths:
        raise ValueError(
            f"alignments: there is no file <ID>.tsv in {folder}; give the folder of the alignments"
        )
    return paths


def phones_at(times: np.ndarray, alignment: Sequence[Phone]) -> np.ndarray:
    """The phone at each time. Times outside the alignment get its first or last phone.

    Example
    -------
    >>> phones_at(np.array([0.1, 0.3]), [(0.0, 0.2, "SIL"), (0.2, 0.4, "s")]).tolist()
    ['SIL', 's']
    """
    starts = np.array([start for start, _, _ in alignment])
    phones = np.array([phone for _, _, phone in alignment])
    return phones[(np.searchsorted(starts, times, side="right") - 1).clip(min=0)]
