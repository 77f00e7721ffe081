"""A folder that gets its name when it is whole."""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


def write(folder: str, name: str, text: str) -> None:
    """Writes a text file."""
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text)


@contextmanager
def new_folder(output: str | os.PathLike[str]) -> Iterator[str]:
    """A folder beside the output, which gets its name at the end; nothing is left after an error.

    Raises
    ------
    ValueError
        If there is something else under that name. A folder with the same files is left alone.

    Example
    -------
    >>> output = getfixture("tmp_path") / "model"
    >>> with new_folder(output) as folder:
    ...     write(folder, "README.md", "Hello")
    >>> os.listdir(output)
    ['README.md']
    >>> with new_folder(output) as folder:  # doctest: +ELLIPSIS
    ...     write(folder, "README.md", "Bye")
    Traceback (most recent call last):
    ValueError: --output ...model exists and has other content; give the name of a new folder
    """
    path = os.path.abspath(output)
    refusal = f"--output {output} exists and has other content; give the name of a new folder"
    if os.path.lexists(path) and not os.path.isdir(path):
        raise ValueError(refusal)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        folder = tempfile.mkdtemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path))
    except OSError as error:
        raise ValueError(f"--output {output}: {error.strerror}; give another path") from error
    try:
        os.chmod(folder, 0o777 & ~umask())
        yield folder
        if os.path.isdir(path) and os.listdir(path):
            names = sorted(os.listdir(folder))
            same = sorted(os.listdir(path)) == names
            if not same or filecmp.cmpfiles(path, folder, names, shallow=False)[0] != names:
                raise ValueError(refusal)
        else:
            os.rename(folder, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def umask() -> int:
    """The bits that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
