"""Writes files of a run only into its own folder, never through a symbolic link."""

import errno
import os
from io import TextIOWrapper
from pathlib import Path
from typing import Literal

from .errors import RunError

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def refuse_link(path: str | Path) -> None:
    """Raises a RunError if a file that a run is about to write is a symbolic link.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> refuse_link(folder / "metrics.jsonl")
    >>> os.symlink("/etc/hosts", folder / "metrics.jsonl")
    >>> refuse_link(folder / "metrics.jsonl")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    brainquant.errors.RunError: .../metrics.jsonl is a symbolic link to /etc/hosts: ...
    """
    if os.path.islink(path):
        raise RunError(
            f"{path} is a symbolic link to {os.readlink(path)}: a run writes no file through a "
            f"link, since that would change another one; remove it, or begin in a new "
            f"output_folder:"
        )


def refuse_links(folder: str | Path) -> None:
    """Raises a RunError if an entry of a run's folder is a link to a file, or a broken link.

    SpeechBrain and torch write some files there and follow links. A link to a folder is allowed,
    such as ``save`` on a larger disk. The run's folder may be a link, too.

    Arguments
    ---------
    folder : str
        The run's folder; it exists.
    """
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if not os.path.isdir(path):
            refuse_link(path)


def open_own(path: str | Path, mode: Literal["a", "w"]) -> TextIOWrapper:
    """Opens a text file of the run in UTF-8, unless it is a symbolic link.

    Arguments
    ---------
    path : str
        The file.
    mode : str
        "a" or "w".

    Returns
    -------
    file : io.TextIOWrapper

    Raises
    ------
    RunError
        If the path is a symbolic link.
    """
    refuse_link(path)

    def open_no_link(name, flags):  # somebody may have made it a link since the check
        return os.open(name, flags | os.O_NOFOLLOW, 0o666)

    return open(path, mode, encoding="utf-8", opener=open_no_link)


def replace_text(path: str | Path, text: str) -> None:
    """Writes a text file of the run in one step, so that a reader never sees half of it.

    A link in the place of the file is replaced, too, and not what it leads to.

    Arguments
    ---------
    path : str
        The file to write or replace.
    text : str
        All of it.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> replace_text(folder / "report.html", "<p>whole</p>")
    >>> [file.basename for file in folder.listdir()], folder.join("report.html").read()
    (['report.html'], '<p>whole</p>')
    """
    part = f"{os.fspath(path)}.part"
    try:
        with open_own(part, "w") as file:
            file.write(text)
        os.replace(part, path)
    except OSError:  # half a file, on a full disk
        if os.path.exists(part):
            os.remove(part)
        raise
