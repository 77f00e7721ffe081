"""The folder of one checkpoint: the sums of its files, and how it appears and disappears whole."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from speechbrain.utils.checkpoints import METAFNAME, PARAMFILE_EXT
from speechbrain.utils.logger import get_logger

from .checkpoint_contents import Damaged, read_meta

logger = get_logger(__name__)

MANIFEST = "SHA256SUMS"  # `sha256sum -c SHA256SUMS` reads it too
# Neither our Checkpointer nor SpeechBrain's takes a folder with such a prefix for a checkpoint.
UNFINISHED, DELETED, DAMAGED = ".unfinished+", ".deleted+", "damaged+"


def write_manifest(folder: Path) -> None:
    """Writes the sums of all files of a folder into it, and flushes everything to the disk."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    names.sort(key=METAFNAME.__eq__)  # comes last: without it the manifest was cut short
    lines = [f"{sha256(folder / name)}  {name}\n" for name in names]
    (folder / MANIFEST).write_bytes("".join(lines).encode())
    for path in (*folder.rglob("*"), folder):
        flush(path)


def what_is_wrong(folder: Path) -> str | None:
    """Says what is wrong with the first damaged file of a checkpoint; None if all are whole.

    A file is whole if it matches its sum in the manifest.

    Example
    -------
    >>> folder = Path(getfixture("tmpdir"))
    >>> what_is_wrong(folder)
    'SHA256SUMS is missing: not saved to its end, or not by brainquant'
    >>> _ = (folder / METAFNAME).write_text("{unixtime: 1.0, end-of-epoch: true}")
    >>> write_manifest(folder)
    >>> what_is_wrong(folder)
    >>> _ = (folder / METAFNAME).write_text("{unixtime: 9.0, end-of-epoch: true}")
    >>> what_is_wrong(folder)
    'CKPT.yaml is not as it was saved'
    """
    name, names = MANIFEST, []
    try:
        manifest = (folder / name).read_bytes().decode()
        for line in manifest.split("\n")[:-1]:
            name = line.partition("  ")[2] or MANIFEST
            names.append(name)
            if not is_inside(name):
                return f"{MANIFEST} names {name!r}, which is not in the folder"
            if line != f"{sha256(folder / name)}  {name}":
                return f"{name} is not as it was saved"
        if not manifest.endswith(f"  {METAFNAME}\n"):
            return f"{MANIFEST} is cut short"
        read_meta(folder)
    except FileNotFoundError:
        more = ": not saved to its end, or not by brainquant" if name == MANIFEST else ""
        return f"{name} is missing{more}"
    except (OSError, ValueError) as error:
        return f"{name} cannot be read: {error}"
    except Damaged as damage:
        return str(damage)
    # A file that is loaded must have a sum. Other files, such as somebody's notes, do no harm.
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if PARAMFILE_EXT in name and name not in names and not path.is_dir():
            return f"{name} has no sum in {MANIFEST}"
    return None


def is_inside(name: str) -> bool:
    """Whether a name in a manifest stays inside the folder.

    Example
    -------
    >>> [is_inside(name) for name in ("model.ckpt", "parts.ckpt/a", "/dev/zero", "../../x")]
    [True, True, False, False]
    """
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def meta_is_whole(folder: Path) -> bool:
    """Whether ``CKPT.yaml`` can be read and matches its sum, the last one of the manifest."""
    try:
        line = f"{sha256(folder / METAFNAME)}  {METAFNAME}\n"
        read_meta(folder)
        return (folder / MANIFEST).read_bytes().endswith(line.encode())
    except (OSError, ValueError, Damaged):
        return False


def sha256(path: Path) -> str:
    """The sum of a file; a ValueError if it is a device or a pipe, which may never end."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Waits until a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def publish(unfinished: Path, path: Path, spare: Path) -> None:
    """Gives a checkpoint that is complete its name.

    Arguments
    ---------
    unfinished : pathlib.Path
        The folder of the checkpoint.
    path : pathlib.Path
        Its name from now on. An older checkpoint of that name is replaced.
    spare : pathlib.Path
        A free name. The new checkpoint has it while the older one is removed, so one of the two
        is there and whole at any moment.
    """
    if path.exists():
        os.rename(unfinished, spare)
        remove(path)
        os.rename(spare, path)
    else:
        os.rename(unfinished, path)
    flush(path.parent)


def set_aside(folder: Path, reason: str) -> None:
    """Renames a damaged checkpoint so that it is never loaded, and logs a warning."""
    aside = folder.with_name(DAMAGED + folder.name)
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = folder.with_name(f"{DAMAGED}{folder.name}+{number}")
    logger.warning(f"{folder} is no whole checkpoint ({reason}): renamed to {aside.name}")
    os.rename(folder, aside)


def remove(folder: Path) -> None:
    """Removes a checkpoint. It stops being one at once, by a rename."""
    deleted = folder.with_name(DELETED + folder.name)
    os.rename(folder, deleted)
    remove_tree(deleted)


def remove_leftovers(checkpoints_dir: Path) -> None:
    """Removes what an earlier save or removal left behind when it failed or was killed."""
    for prefix in (UNFINISHED, DELETED):
        for path in checkpoints_dir.glob(f"{prefix}*"):
            remove_tree(path)


def remove_tree(folder: Path) -> None:
    """Removes a folder. Removes a symbolic link, but not its target."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def check_meta(meta: Mapping[str, Any]) -> None:
    """Refuses values that ``CKPT.yaml`` can store but not load again."""
    for key, value in meta.items():
        try:
            yaml.safe_load(yaml.dump(value))
        except yaml.YAMLError as error:
            raise ValueError(
                f"meta[{key!r}] of a checkpoint is {value!r}, which {METAFNAME} cannot hold: make "
                f"it a plain number or text"
            ) from error
