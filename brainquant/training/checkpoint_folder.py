"""The folder of a checkpoint: the sums of its files, and how it comes and goes as a whole."""

import hashlib
import os
import shutil
from pathlib import PurePosixPath

import yaml
from speechbrain.utils.checkpoints import METAFNAME, PARAMFILE_EXT
from speechbrain.utils.logger import get_logger

from .checkpoint_contents import Damaged, read_meta

logger = get_logger(__name__)

MANIFEST = "SHA256SUMS"  # `sha256sum -c SHA256SUMS` in the folder reads it, too
# Names that neither our Checkpointer nor SpeechBrain's takes for a checkpoint.
UNFINISHED, DELETED, DAMAGED = ".unfinished+", ".deleted+", "damaged+"


def write_manifest(folder):
    """Writes the sums of all files of a folder into it, and flushes all of them to the disk."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    names.sort(key=METAFNAME.__eq__)  # last, so that a manifest that is cut short is noticed
    lines = [f"{sha256(folder / name)}  {name}\n" for name in names]
    (folder / MANIFEST).write_bytes("".join(lines).encode())
    for path in (*folder.rglob("*"), folder):
        flush(path)


def what_is_wrong(folder):
    """Names the first file of a folder that does not match the manifest; None where all do.

    Example
    -------
    >>> from pathlib import Path
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
    # Every file that is loaded has to have a sum. Notes beside them do no harm.
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if PARAMFILE_EXT in name and name not in names and not path.is_dir():
            return f"{name} has no sum in {MANIFEST}"
    return None


def is_inside(name):
    """Whether a name of a manifest is that of a file in its folder.

    Example
    -------
    >>> [is_inside(name) for name in ("model.ckpt", "parts.ckpt/a", "/dev/zero", "../../x")]
    [True, True, False, False]
    """
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def meta_is_whole(folder):
    """Whether ``CKPT.yaml`` matches the end of the manifest, and holds what is read of it."""
    try:
        line = f"{sha256(folder / METAFNAME)}  {METAFNAME}\n"
        read_meta(folder)
        return (folder / MANIFEST).read_bytes().endswith(line.encode())
    except (OSError, ValueError, Damaged):
        return False


def sha256(path):
    """The sum of a file; a ValueError where it is a device or a pipe, which may have no end."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def flush(path):
    """Has what is known of a file or a folder written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size(folder):
    """Bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def set_aside(folder, reason):
    """Keeps a damaged checkpoint where nothing loads it, and warns of what is wrong with it."""
    aside = folder.with_name(DAMAGED + folder.name)
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = folder.with_name(f"{DAMAGED}{folder.name}+{number}")
    logger.warning(f"{folder} is no whole checkpoint ({reason}): now {aside.name}")
    os.rename(folder, aside)


def remove(folder):
    """Removes a checkpoint, which is none from the first moment on."""
    deleted = folder.with_name(DELETED + folder.name)
    os.rename(folder, deleted)
    remove_tree(deleted)


def remove_tree(folder):
    """Removes a folder, or a symbolic link without what it leads to."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def check_meta(meta):
    """Refuses what ``CKPT.yaml`` would take and not give back."""
    for key, value in meta.items():
        try:
            yaml.safe_load(yaml.dump(value))
        except yaml.YAMLError as error:
            raise ValueError(
                f"meta[{key!r}] of a checkpoint is {value!r}, which {METAFNAME} cannot hold: make "
                f"a plain number or text of it"
            ) from error
