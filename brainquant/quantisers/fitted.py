"""Tensors that were fitted to data and that a quantiser starts from."""

import os

import numpy as np
import torch
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
    >>> load_fitted("none.safetensors", ["P"], argument="projection", command="brainquant pca")
    Traceback (most recent call last):
    ValueError: projection: the file none.safetensors does not exist; make it with: brainquant pca
    """
    try:
        tensors = load_file(path)
        return [tensors[name] for name in names]
    except KeyError as error:
        fault = f"has no tensor {error}"
    except (OSError, SafetensorError) as error:
        fault = f"cannot be read ({error})" if os.path.exists(path) else "does not exist"
    raise ValueError(f"{argument}: the file {path} {fault}; make it with: {command}")


def whitening(pca, dim, frames, *, argument):
    """The projection onto principal components, each with zero mean and unit variance.

    Arguments
    ---------
    pca : sklearn.decomposition.PCA or IncrementalPCA
        Fitted, with all components.
    dim : int
        Components to keep.
    frames : int
        What it was fitted to, for the error.
    argument : str
        What sets ``dim``, for the error.

    Returns
    -------
    P : torch.Tensor
        Shape (input dim, dim), float32.
    offset : torch.Tensor
        Shape (dim,), float32: ``x @ P + offset`` is white.

    Raises
    ------
    ValueError
        Where dim is more than the directions in which the frames vary.
    """
    variance_I = pca.explained_variance_
    directions = int((variance_I > np.finfo(np.float32).eps * variance_I[0]).sum())
    if dim > directions:
        raise ValueError(
            f"{frames} frames vary in {directions} directions only, got {argument} {dim}; "
            f"lower it, or set train_csv: to more audio"
        )
    P_ID = pca.components_[:dim].T / np.sqrt(variance_I[:dim])
    offset_D = -pca.mean_ @ P_ID
    return tuple(torch.from_numpy(array).float().contiguous() for array in (P_ID, offset_D))
