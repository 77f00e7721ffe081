"""The files that a manifest names: whether they are there, and by which spelling."""

import os
import unicodedata


class FileNames:
    """Finds files whose letters have their accents apart where the path has them in one.

    macOS stores "é" as "e" and an accent (NFD); most manifests have it as one character (NFC). To
    Linux these are two names.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "e\\u0301.wav").touch()
    >>> path = FileNames().find(str(folder / "\\u00e9.wav"))
    >>> path == str(folder / "e\\u0301.wav")
    True
    """

    def __init__(self):
        self._listed = {}

    def find(self, path):
        """The path of the file as the disk has it; the path itself where there is no such file.

        Each folder is listed once.
        """
        if path.isascii():
            return path
        folder, name = os.path.split(path)
        folder, names = self._list(folder)
        other = names.get(name) or names.get(unicodedata.normalize("NFC", name))
        return os.path.join(folder, other) if other else path

    def _list(self, folder):
        """The folder as the disk has it, and the names in it, as they are and by their NFC."""
        if folder not in self._listed:
            found = folder if os.path.isdir(folder or ".") else self.find(folder)
            try:
                names = [name for name in os.listdir(found or ".") if not name.isascii()]
            except OSError:
                names = []
            forms = {unicodedata.normalize("NFC", name): name for name in sorted(names)}
            self._listed[folder] = found, forms | {name: name for name in names}
        return self._listed[folder]


def missing_files(paths):
    """Folders and names that are no files; each folder is listed once, for network disks."""
    by_folder = {}
    for path in paths:
        folder, name = os.path.split(path)
        by_folder.setdefault(folder, set()).add(name)
    return {
        (folder, name)
        for folder, names in by_folder.items()
        for name in names - _files_among(names, folder)
    }


def _files_among(names, folder):
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.name in names and entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise ValueError(
            f"the folder {folder} cannot be listed ({error.strerror}); allow it for its user"
        ) from None
