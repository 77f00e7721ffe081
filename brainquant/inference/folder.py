"""An exported folder: config.json and model.safetensors, opened without trust."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .. import __version__
from ..models import SpeechEncoder
from .architecture import build
from .pretrained import PretrainedEncoder
from .safe_files import REMEDY, read_header, read_json

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FORMAT = 1
MADE_BY = re.compile(r"brainquant [\w.+-]{1,40}")
# What a config.json has, and its types. `training` is for readers only.
KEYS: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "made_by": str,
    "fingerprint": str,
    "step": (int, type(None)),
    "sample_rate": int,
    "frame_rate": (int, float),
    "dim": int,
    "num_layers": int,
    "num_codebooks": int,
    "codebook_size": int,
    "architecture": dict,
    "training": dict,
}
MEASURED = ("sample_rate", "frame_rate", "dim", "num_layers", "num_codebooks", "codebook_size")
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def open_folder(
    folder: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> PretrainedEncoder:
    """The encoder in a folder that ``brainquant export`` has written, or somebody else.

    Nothing in the folder is executed. All is checked before it is used: the list of classes, the
    sizes, the header of the weights, the weights themselves, and the fingerprint of both files.

    Arguments
    ---------
    folder : str or os.PathLike
        Has ``config.json`` and ``model.safetensors``.
    device : str or torch.device
        Where to put the encoder.

    Raises
    ------
    ValueError
        If something is missing, damaged, not allowed, or of a newer version. It is one line.
    """
    config_path = os.path.join(os.fspath(folder), CONFIG)
    weights_path = os.path.join(os.fspath(folder), WEIGHTS)
    with _one_line():
        config = read_json(config_path)
        _check_config(config, config_path)
        header = read_header(weights_path)
        shapes = {name: shape for name, (_, shape) in header.items()}
        try:
            encoder, quantiser = build(config["architecture"], shapes)
        except ValueError as error:
            raise ValueError(f"{config_path} and {WEIGHTS}: {error}; {REMEDY}") from error
        model = PretrainedEncoder(
            encoder, quantiser, step=config["step"], description=config["architecture"]
        )
        _load(model, weights_path, {name: DTYPES[dtype] for name, (dtype, _) in header.items()})
        _compare(model, config, config_path)
    return model.to(device)


def is_exported(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is an exported one, and not that of a run, whose YAML is executed.

    So a folder with only a part of an export, or with something else under these names, is none.
    """
    return any(os.path.lexists(os.path.join(folder, name)) for name in (CONFIG, WEIGHTS))


def build_encoder(folder: str | os.PathLike[str]) -> SpeechEncoder:
    """The encoder that an exported folder describes, with random parameters.

    It reads ``config.json`` only. Errors are those of ``open_folder``.
    """
    path = os.path.join(folder, CONFIG)
    with _one_line():
        config = read_json(path)
        _check_config(config, path)
        try:
            return build(config["architecture"])[0]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


@contextmanager
def _one_line() -> Iterator[None]:
    """Makes one line of an error: names of strangers may have line ends in them."""
    try:
        yield
    except ValueError as error:
        line = "".join(c if c.isprintable() else " " for c in str(error))
        raise ValueError(" ".join(line.split())) from error


def _check_config(config: dict[str, Any], path: str) -> None:
    version, made_by = config.get("format"), config.get("made_by")
    named = isinstance(made_by, str) and MADE_BY.fullmatch(made_by)
    if type(version) is not int or version < 1 or not named:
        raise ValueError(
            f"{path} was not written by brainquant export: it lacks format and made_by"
        )
    if version > FORMAT:
        raise ValueError(
            f"{path}: made by {made_by}, this is brainquant {__version__}; upgrade with: pip "
            f"install --upgrade brainquant"
        )
    if unknown := sorted(set(config) ^ set(KEYS)):
        fault = "has the unknown key" if unknown[0] in config else "lacks the key"
        raise ValueError(f"{path} {fault} {unknown[0][:50]!r}; {REMEDY}")
    for key, kind in KEYS.items():
        if not isinstance(config[key], kind) or isinstance(config[key], bool):
            raise ValueError(f"{path}: {key} must not be {str(config[key])[:50]!r}; {REMEDY}")
    if config["step"] is not None and not 0 <= config["step"] < 2**63:
        raise ValueError(f"{path}: step must be from 0 up; {REMEDY}")


def _load(model: PretrainedEncoder, path: str, dtypes: dict[str, torch.dtype]) -> None:
    """Puts the tensors of the file into the model, which nobody holds before."""
    expected = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    for name, dtype in dtypes.items():
        if expected.get(name) != dtype:
            raise ValueError(
                f"{path}: {name:.100} is of type {dtype}, but the model has "
                f"{expected.get(name, 'no such tensor')}; {REMEDY}"
            )
    try:
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise ValueError(f"{path}: {name} has NaN or infinite values; the model is broken")
        model.load_state_dict(tensors)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be loaded ({error!s:.300}); {REMEDY}") from error


def _compare(model: PretrainedEncoder, config: dict[str, Any], path: str) -> None:
    """Whether the model is the one that was exported."""
    for key in MEASURED:
        if config[key] != (value := getattr(model, key)):
            raise ValueError(
                f"{path}: {key} is {config[key]!s:.30}, but the model has {value}; {REMEDY}"
            )
    if config["fingerprint"] != model.fingerprint():
        raise ValueError(
            f"{path}: the fingerprint does not fit to {WEIGHTS} and architecture: one of them was "
            f"changed or damaged; {REMEDY}"
        )
