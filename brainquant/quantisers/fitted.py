"""Tensors that a command fitted to data and that a quantiser starts from."""

import os

from safetensors import SafetensorError
from safetensors.torch import load_file


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
