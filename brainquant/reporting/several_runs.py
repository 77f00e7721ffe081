"""Several runs beside each other: read together, with names that differ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .folder_files import REMEDY
from .run_files import printable
from .run_folder import RunFolder, read_run


def read_runs(folders: Sequence[str | os.PathLike[str]]) -> tuple[list[RunFolder], list[str]]:
    """Reads several runs and gives them short names that differ.

    Arguments
    ---------
    folders : sequence of str
        Folders of runs.

    Returns
    -------
    runs : list of RunFolder
        Those of which something could be read.
    remarks : list of str
        A line for each of the others.

    Raises
    ------
    ValueError
        If a folder is given twice, or none could be read.
    """
    found: list[RunFolder] = []
    remarks: list[str] = []
    real = [os.path.realpath(folder) for folder in folders]
    for number, folder in enumerate(folders):
        if real[number] in real[:number]:
            raise ValueError(f"{printable(folder)} is given twice; give each run once")
        try:
            found.append(read_run(folder))
        except ValueError as error:
            remarks.append(str(error))
    if not found:
        raise ValueError("; ".join(remarks) or f"no run is given; {REMEDY}")
    names = name_runs([run.folder for run in found])
    return [replace(run, name=name) for run, name in zip(found, names)], remarks


def name_runs(folders: Sequence[str]) -> list[str]:
    """The shortest ends of paths that differ from those of the other paths.

    Example
    -------
    >>> name_runs(["results/best_rq/seed_1", "results/wav2vec2/seed_1", "other/"])
    ['best_rq/seed_1', 'wav2vec2/seed_1', 'other']
    """
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    names = []
    for mine in parts:
        length = 1
        while sum(other[-length:] == mine[-length:] for other in parts) > 1 and length < len(mine):
            length += 1
        names.append(printable(os.path.join(*mine[-length:])))
    return names
