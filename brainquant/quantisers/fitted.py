"""Tensors that a command fitted to data and that a quantiser starts from."""

import filecmp
import os
import shutil

from safetensors import SafetensorError
from safetensors.torch import load_file
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


def load_fitted(path, names, *, argument, command):
    """Tensors of a .safetensors file.

    Arguments
    ---------
    path : str
        The file.
    names : list of str
        Tensors that it has to hold.
    argument : str
        The quantiser's argument that names the file, for the error.
    command : str
        What makes such a file, for the error.

    Returns
    -------
    tensors : list of torch.Tensor
        In the order of the names.

    Raises
    ------
    ValueError
        Where the file is missing, unreadable or another one.

    Example
    -------
    >>> load_fitted("none.safetensors", ["x"], argument="centroids", command="brainquant kmeans")
    Traceback (most recent call last):
    ValueError: centroids: the file none.safetensors does not exist; make it with: brainquant kmeans
    """
    try:
        tensors = load_file(path)
        return [tensors[name] for name in names]
    except KeyError as error:
        fault = f"has no tensor {error}"
    except (OSError, SafetensorError) as error:
        fault = f"cannot be read ({error})" if os.path.exists(path) else "does not exist"
    raise ValueError(f"{argument}: the file {path} {fault}; make it with: {command}")


def keep_fitted(argument, path, folder):
    """Keeps such a file in the folder of a run: for ``files_needed`` of a quantiser.

    Arguments
    ---------
    argument : str
        The quantiser's argument that names the file.
    path : str
        The file.
    folder : str
        Where a copy is made, unless there is one.

    Returns
    -------
    arguments : dict or None
        The path of the copy, by the argument; None where there are neither file nor copy.
    """
    copy = os.path.join(folder, f"{argument}.safetensors")
    if os.path.isfile(copy):
        if os.path.isfile(path) and not filecmp.cmp(path, copy, shallow=False):
            logger.warning(
                f"{argument}: {path} has changed since the run began; the run goes on with what it "
                f"began with, {copy}. To train with the file as it is now, begin in a new "
                f"output_folder:"
            )
    elif os.path.isfile(path):
        os.makedirs(folder, exist_ok=True)
        shutil.copyfile(path, copy + ".part")
        os.replace(copy + ".part", copy)
    else:
        return None
    return {argument: copy}
