"""The targets that a YAML chooses: log-mel features, or a layer of the model as it came."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

from safetensors.torch import save_file

from ..errors import RunError
from .checks import MASK_VECTOR
from .continuing import hold, keep_model
from .loading import read_config
from .parts import field_and_stride
from .source import PREPROCESSOR, Source, find_model, write_description
from .targets import LayerTargets, LogMelTargets, Targets

WEIGHTS = "model.safetensors"


def make_targets(
    model: str, *, layer: int | None = None, revision: str | None = None
) -> Targets | None:
    """What the quantiser of a masked prediction reads, for ``!apply:`` in a YAML.

    Arguments
    ---------
    model : str
        A folder of transformers, or a Hub id such as ``facebook/hubert-base-ls960``.
    layer : int or None
        The layer of the model as it came whose outputs are read, counted from 1. None: log-mel
        features; or, for w2v-BERT 2.0, the filterbanks that the model itself reads.
    revision : str or None
        Branch, tag or commit on the Hub.

    Returns
    -------
    targets : Targets or None
        None if the encoder has such inputs already.

    Raises
    ------
    ValueError
        If the model cannot be loaded, or has no such layer.
    """
    source = find_model(model, revision)
    if layer is not None:
        return LayerTargets(hold(source), layer)
    config = read_config(source)
    if config.model_type == "wav2vec2-bert":
        return None
    field, stride = field_and_stride(list(zip(config.conv_kernel, config.conv_stride)))
    return LogMelTargets(source.sample_rate, field=field, stride=stride)


def keep_targets(
    argument: str, model: str, kept: str, arguments: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Copies what the targets need: the ``files_needed`` of ``make_targets``.

    For targets of a layer that is the model up to this layer: no checkpoint has its weights.

    Arguments
    ---------
    argument : str
        The argument that names the model.
    model : str
        The folder or the Hub id.
    kept : str
        The folder of the copy.
    arguments : dict
        All arguments of ``make_targets``.

    Returns
    -------
    arguments : dict or None
        Arguments that use the copy; None if there is neither a model nor a copy.

    Raises
    ------
    RunError
        If the model is another one than the copy. The targets would change within the run.
    """
    layer, revision = arguments.get("layer"), arguments.get("revision")
    if layer is None:
        return {argument: kept} if keep_model(argument, model, kept, arguments) else None
    try:
        source = find_model(model, revision)
    except ValueError:
        return {argument: kept} if os.path.isfile(os.path.join(kept, WEIGHTS)) else None
    held = _up_to(layer, source)
    if os.path.isfile(os.path.join(kept, WEIGHTS)):
        copy = find_model(kept)
        if copy.config["num_hidden_layers"] == layer:
            _refuse_another(held, _up_to(layer, copy), model, kept)
            return {argument: kept}
        shutil.rmtree(kept)
    part = kept + ".part"
    os.makedirs(part, exist_ok=True)
    if source.state is not None:
        write_description(source, part)
    elif os.path.isfile(preprocessor := os.path.join(source.folder, PREPROCESSOR)):
        shutil.copyfile(preprocessor, os.path.join(part, PREPROCESSOR))
    held.config.save_pretrained(part)
    tensors = {name: tensor.contiguous() for name, tensor in held.state_dict().items()}
    save_file(tensors, os.path.join(part, WEIGHTS), {"format": "pt"})
    os.replace(part, kept)
    return {argument: kept}


def _up_to(layer: int, source: Source) -> Any:
    """The model of transformers without the layers above one."""
    encoder: Any = LayerTargets(hold(source), layer).encoder
    encoder.model.config.num_hidden_layers = layer
    return encoder.model


def _refuse_another(model: Any, copy: Any, source: str, kept: str) -> None:
    tensors, copied = model.state_dict(), copy.state_dict()
    for state in (tensors, copied):
        state.pop(MASK_VECTOR, None)  # which may have been drawn, and is not used
    if tensors.keys() != copied.keys() or any(not t.equal(copied[n]) for n, t in tensors.items()):
        raise RunError(
            f"model: {source} has changed since the run began, so its targets would change; move "
            f"it away (the run goes on with its copy, {kept}), or begin in a new output_folder:"
        )


make_targets.files_needed = {"model": keep_targets}  # pyright: ignore[reportFunctionMemberAccess]
