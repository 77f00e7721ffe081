"""The file of a k-means says to which layer of which model it was fitted."""

from __future__ import annotations

import os
from typing import Any

from safetensors import SafetensorError, safe_open


def fitted_layer(
    path: str | os.PathLike[str], layer: int | None, num_layers: int, fingerprint: str
) -> int:
    """The layer that a k-means was fitted to.

    Arguments
    ---------
    path : str or os.PathLike
        The .safetensors of ``brainquant kmeans``.
    layer : int or None
        The layer that is meant; needed if the file does not say it.
    num_layers, fingerprint : int, str
        Those of the model.

    Raises
    ------
    ValueError
        If the file was fitted to another layer or to another model.
    """
    meta = read_metadata(path)
    recorded = int(meta["layer"]) if "layer" in meta else None
    if layer is not None and recorded not in (None, layer):
        raise ValueError(f"{path} was fitted to layer {recorded}, not to layer {layer}")
    layer = recorded if layer is None else layer
    if layer is None:
        raise ValueError(f"{path} does not say to which layer it was fitted; give the layer")
    if not 0 <= layer <= num_layers:
        raise ValueError(
            f"{path} was fitted to layer {layer}, but this model has {num_layers} layers; fit a "
            f"k-means to one of them"
        )
    if meta.get("fingerprint", fingerprint) != fingerprint:
        raise ValueError(
            f"{path} was fitted to another model; fit one to this model with brainquant kmeans"
        )
    return layer


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata of a .safetensors file; a ValueError if it cannot be read."""
    try:
        file: Any = safe_open(path, "pt")
        with file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        fault = "does not exist" if not os.path.exists(path) else f"cannot be read ({error})"
        raise ValueError(f"{path} {fault}; make it with brainquant kmeans") from error
