"""What every command needs."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable

AddCommand = Callable[..., argparse.ArgumentParser]
OVERRIDES = (
    "Every key of the recipe's YAML is an option too, as in training: --data_folder, "
    "--output_folder, --seed, --device and so on."
)


def positive(text: str) -> float:
    """A finite number above 0, for argparse.

    Example
    -------
    >>> positive("2.5")
    2.5
    """
    if not 0 < (number := float(text)) < math.inf:
        raise ValueError(f"{text} is not above 0")
    return number


def check_output(option: str, path: str) -> None:
    """Makes the folder of an output file before the work; a ValueError if that is impossible."""
    folder = os.path.dirname(path) or "."
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{option} {path}: {error}; give another path") from error
    # A file of its name would replace a device or a pipe, such as /dev/null.
    is_other = os.path.exists(path) and not os.path.isfile(path)
    if not path or is_other or not os.access(folder, os.W_OK):
        raise ValueError(f"{option} {path}: cannot be written; give the path of a file")
