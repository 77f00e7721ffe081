"""The files that a manifest names: whether they exist, and how the disk spells their names."""

import os
import unicodedata
from collections.abc import Iterable


class FileNames:
    """Finds files although the disk and the path may spell accents in different ways.

    macOS stores "é" as "e" and an accent (NFD); most manifests have one character (NFC). For Linux
    these are two names.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "e\\u0301.wav").touch()
    >>> path = FileNames().find(str(folder / "\\u00e9.wav"))
    >>> path == str(folder / "e\\u0301.wav")
    True
    """

    def __init__(self):
        self._listed: dict[str, tuple[str, dict[str, str]]] = {}

    def find(self, path: str) -> str:
        """The path as the disk spells it, or the path itself if there is no such file.

        Each folder is listed once.
        """
        if path.isascii():
            return path
        folder, name = os.path.split(path)
        folder, names = self._list(folder)
        other = names.get(name) or names.get(unicodedata.normalize("NFC", name))
        return os.path.join(folder, other) if other else path

    def _list(self, folder: str) -> tuple[str, dict[str, str]]:
        """The folder as the disk spells it, and its names by themselves and by their NFC."""
        if folder not in self._listed:
            found = folder if os.path.isdir(folder or ".") else self.find(folder)
            try:
                names = [name for name in os.listdir(found or ".") if not name.isascii()]
            except OSError:
                names = []
            forms = {unicodedata.normalize("NFC", name): name for name in sorted(names)}
            self._listed[folder] = found, forms | {name: name for name in names}
        return self._listed[folder]


def missing_files(paths: Iterable[str]) -> set[tuple[str, str]]:
    """The folder and name of each path that is not a file. Each folder is listed only once."""
    by_folder: dict[str, set[str]] = {}
    for path in paths:
        folder, name = os.path.split(path)
        by_folder.setdefault(folder, set()).add(name)
    return {
        (folder, name)
        for folder, names in by_folder.items()
        for name in names - _files_among(names, folder)
    }


def _files_among(names: set[str], folder: str) -> set[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.name in names and entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise ValueError(
            f"the folder {folder} cannot be listed ({error.strerror}); change its permissions"
        ) from None
