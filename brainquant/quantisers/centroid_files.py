"""Files of fitted centroids: how they are read, and how a run keeps them."""

from __future__ import annotations

import filecmp
import logging
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

# Not SpeechBrain's: a program that only quantises does not wait for its imports.
logger = logging.getLogger(__name__)


def load_centroids(path: Path | str, command: str) -> torch.Tensor:
    """The centroids of a .safetensors file.

    Arguments
    ---------
    path : str
        The file.
    command : str
        The command that makes such a file, for the error.

    Returns
    -------
    centroids_VI : torch.Tensor

    Raises
    ------
    ValueError
        If the file is missing or unreadable, or has no tensor ``centroids``.

    Example
    -------
    >>> load_centroids("none.safetensors", "brainquant kmeans")
    Traceback (most recent call last):
    ValueError: centroids: the file none.safetensors does not exist; make it with: brainquant kmeans
    """
    try:
        return load_file(path)["centroids"]
    except KeyError as error:
        fault = f"has no tensor {error}"
    except (OSError, SafetensorError) as error:
        fault = f"cannot be read ({error})" if os.path.exists(path) else "does not exist"
    raise ValueError(f"centroids: the file {path} {fault}; make it with: {command}")


def keep_fitted(argument: str, path: str, folder: str) -> dict[str, str] | None:
    """Copies a fitted file into the folder of a run, for ``files_needed`` of a quantiser.

    Arguments
    ---------
    argument : str
        The quantiser's argument that names the file.
    path : str
        The file.
    folder : str
        Gets the copy, unless it has one.

    Returns
    -------
    arguments : dict or None
        The path of the copy, by the argument; None if there is neither file nor copy.
    """
    copy = os.path.join(folder, f"{argument}.safetensors")
    if os.path.isfile(copy):
        if os.path.isfile(path) and not filecmp.cmp(path, copy, shallow=False):
            logger.warning(
                f"{argument}: {path} has changed since the run began; the run continues with its "
                f"copy, {copy}. To train with the new file, begin in a new output_folder:"
            )
    elif os.path.isfile(path):
        os.makedirs(folder, exist_ok=True)
        shutil.copyfile(path, copy + ".part")
        os.replace(copy + ".part", copy)
    else:
        return None
    return {argument: copy}
