"""Which files a run's folder has, and what makes it the folder of a run."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..inference.folder import is_exported
from ..training.resolve import HPARAMS
from .run_files import Read, attempt, printable

METRICS, LEFT_OUT, PHONES = "metrics.jsonl", "left_out.jsonl", "phones.json"
PROBES, RATES = r"phones\.json|probe_.*\.json", r"wer_.*\.txt"  # names of files
REMEDY = "give the output_folder: that train.py has written to"


class FolderFiles:
    """The files of a run's folder; what cannot be read becomes a remark.

    Arguments
    ---------
    path : pathlib.Path
        The folder.

    Attributes
    ----------
    names : set of str
        What is in it.
    remarks : list of str
        What could not be read, a line each.

    Raises
    ------
    ValueError
        If it is not the folder of a run.

    Example
    -------
    >>> path = getfixture("tmp_path")
    >>> _ = (path / "metrics.jsonl").write_text("")
    >>> files = FolderFiles(path)
    >>> files.read("metrics.jsonl", lambda path: float(path.read_text()), 0.0), files.remarks
    (0.0, ["metrics.jsonl cannot be read: could not convert string to float: ''"])
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.remarks: list[str] = []
        self.names = _names_in(path)

    def read(self, name: str, read: Callable[[Path], Read], instead: Read) -> Read:
        """Reads a file, if it is there."""
        if name not in self.names:
            return instead
        return attempt(self.remarks, printable(name), partial(read, self.path / name), instead)

    def matching(self, pattern: str) -> list[str]:
        """The names that a regular expression describes."""
        return sorted(name for name in self.names if re.fullmatch(pattern, name))

    def remark(self, holds: bool, text: str) -> None:
        """Adds a remark, if something holds."""
        if holds:
            self.remarks.append(text)


def _names_in(path):
    """The names in the folder of a run; a ValueError if it is none."""
    shown = printable(path)
    try:
        names = set(os.listdir(path))
    except FileNotFoundError as error:
        raise ValueError(f"there is no folder {shown}; {REMEDY}") from error
    except NotADirectoryError as error:
        raise ValueError(f"{shown} is a file; {REMEDY}") from error
    except OSError as error:
        raise ValueError(f"{shown} cannot be read ({error.strerror}); {REMEDY}") from error
    if not names:
        raise ValueError(f"{shown} is empty: the run has not begun; {REMEDY}")
    if METRICS not in names and is_exported(path):
        raise ValueError(f"{shown} is an exported encoder, which has no log; {REMEDY}")
    if not names & {METRICS, HPARAMS}:
        inner = [*path.glob(f"*/{HPARAMS}"), *path.glob(f"*/*/{HPARAMS}")][:3]
        runs = ", ".join(printable(found.parent) for found in sorted(inner))
        more = f"; there are runs in it, such as {runs}" if runs else f"; {REMEDY}"
        raise ValueError(f"{shown} is not the folder of a run: no {METRICS} or {HPARAMS}{more}")
    return names
