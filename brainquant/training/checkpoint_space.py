"""A disk or quota that is too full for a checkpoint."""

import shutil
from pathlib import Path

from ..own_files import NO_SPACE
from .checkpoint_folder import size

# torch.save writes in C++: its error says where in the code a write failed, but not why.
TORCH_WRITER = ("PytorchStreamWriter", "inline_container", "iostream error")


def is_no_space(error: OSError | RuntimeError) -> bool:
    """Whether a save failed because the disk or the quota is full."""
    return _is_by_torch(error) or getattr(error, "errno", None) in NO_SPACE


def no_space_text(
    error: OSError | RuntimeError, folder: Path, *, written: int, last: Path | None
) -> str:
    """Explains why a checkpoint could not be saved, and what to do.

    Arguments
    ---------
    error : OSError or RuntimeError
        The error of the save.
    folder : pathlib.Path
        The folder of the checkpoints.
    written : int
        Bytes that the save wrote before it failed.
    last : pathlib.Path or None
        The last whole checkpoint, which shows how much space one needs. None if there is none.

    Returns
    -------
    text : str

    Example
    -------
    >>> full, folder = OSError(28, "No space left on device"), Path(getfixture("tmpdir"))
    >>> text = no_space_text(full, folder, written=2_500_000, last=None)
    >>> "it needs more than 2.5 MB" in text and "There is no other yet" in text
    True
    """
    needed = f"{size(last) / 1e6:.1f}" if last else f"more than {written / 1e6:.1f}"
    others = f"The last checkpoint {last} is whole" if last else "There is no other yet"
    reason = f"{'torch.save: ' if _is_by_torch(error) else ''}{error}".splitlines()[0]
    return (
        f"no checkpoint was saved in {folder} ({reason}): it needs {needed} MB, and "
        f"{shutil.disk_usage(folder).free / 1e6:.1f} MB are free. {others}; make space on that "
        f"disk or in your quota"
    )


def _is_by_torch(error):
    return any(part in str(error) for part in TORCH_WRITER)
