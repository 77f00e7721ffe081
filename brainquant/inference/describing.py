"""The encoder and the quantiser of a run as data: what its YAML builds them from."""

from __future__ import annotations

import inspect
import os
import pydoc
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import ruamel.yaml
import yaml
from ruamel.yaml.nodes import MappingNode, SequenceNode

from ..models import BestRQEncoder, SpeechEncoder
from ..quantisers import KMeansQuantizer, make_quantiser
from ..quantisers.centroid_files import load_centroids
from .allowed import ALLOWED, CENTROIDS, check_description, load_class
from .architecture import make
from .folder import CONFIG, is_exported
from .safe_files import read_json

WRAPPER = "speechbrain.lobes.models.transformer.TransformerASR.EncoderWrapper"
TRANSFORMER = "speechbrain.lobes.models.transformer.TransformerASR.TransformerASR"


class Call(NamedTuple):
    """A node ``!new:``, ``!name:`` or ``!apply:`` of a YAML."""

    kind: str
    path: str
    arguments: Any  # a dict by keyword, or a list


class CallLoader(ruamel.yaml.Loader):
    """Loads the YAML of a run and builds nothing: a tag becomes a ``Call``."""


def _constructor(kind: str) -> Callable[[Any, str, Any], Call]:
    def construct(loader: Any, path: str, node: Any) -> Call:
        if isinstance(node, MappingNode):
            return Call(kind, path, loader.construct_mapping(node, deep=True))
        if isinstance(node, SequenceNode):
            return Call(kind, path, loader.construct_sequence(node, deep=True))
        return Call(kind, path, {})

    return construct


def _construct_tuple(loader: Any, node: Any) -> list[Any]:
    """A text in parentheses, as hyperpyyaml reads it; JSON has lists only."""
    return yaml.safe_load(f"[{loader.construct_scalar(node)[1:-1]}]")


for _kind in ("new", "name", "apply"):
    CallLoader.add_multi_constructor(f"!{_kind}:", _constructor(_kind))
CallLoader.add_constructor("!tuple", _construct_tuple)
CallLoader.add_implicit_resolver("!tuple", re.compile(r"^\(.*\)$"), first="(")


def describe_run(hparams_file: str | os.PathLike[str]) -> dict[str, Any]:
    """What the encoder and the quantiser of a run are built from, as data.

    Arguments
    ---------
    hparams_file : str
        The ``hyperparams.yaml`` in the folder of a run. Nothing in it is executed, except that the
        modules that it names are imported.

    Returns
    -------
    description : dict
        ``encoder`` and ``quantiser``, for ``brainquant.inference.architecture.build``.
        ``quantiser`` is None for a fine-tuned run, and if it reads more than the encoder's
        inputs. References are resolved: it is a tree.

    Raises
    ------
    ValueError
        If a part cannot be described: it is of a class that ``build`` would not build.
    """
    from ..brains.stock import is_stock
    from .describing_speechbrain import best_rq_encoder

    path = os.fspath(hparams_file)
    try:
        if is_stock(path):
            with open(path, encoding="utf-8") as file:
                encoder = best_rq_encoder(load_calls(file.read()))
            description = {"encoder": describe(encoder, "encoder"), "quantiser": None}
        else:
            description = _own_description(load_calls(_resolved(path)))
        check_description(description)
        return description
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _own_description(document: Any) -> dict[str, Any]:
    modules = document.get("modules")
    if not isinstance(modules, dict) or "encoder" not in modules:
        raise ValueError("modules: has no encoder")
    quantiser = modules.get("quantiser")
    return {
        "encoder": describe(modules["encoder"], "encoder"),
        "quantiser": describe(quantiser, "quantiser") if _reads_inputs(quantiser) else None,
    }


def _reads_inputs(quantiser: Any) -> bool:
    """Whether a quantiser of a YAML reads the encoder's inputs alone."""
    if isinstance(quantiser, Call) and pydoc.locate(quantiser.path) is make_quantiser:
        quantiser = quantiser.arguments["make"]
    if not isinstance(quantiser, Call):
        return True
    return getattr(pydoc.locate(quantiser.path), "reads_inputs", True)


def _resolved(path: str) -> str:
    from ..training.needed_files import with_kept_files
    from ..training.resolve import resolve

    text = resolve(path, {"output_folder": os.path.dirname(path)})  # it may have been moved
    return with_kept_files(text) or text


def load_calls(text: str) -> Any:
    """A YAML whose tags are calls.

    Example
    -------
    >>> load_calls("drop: !new:torch.nn.Dropout {p: 0.1}")["drop"]
    Call(kind='new', path='torch.nn.Dropout', arguments={'p': 0.1})
    """
    loader = CallLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def describe(value: Any, keys: str) -> Any:
    """A value of a YAML as data.

    Arguments
    ---------
    value : object
        From ``load_calls``.
    keys : str
        The keys that lead to it, for errors.

    Example
    -------
    >>> describe(load_calls("!new:torch.nn.Dropout {p: 0.1}"), "drop")
    {'class': 'torch.nn.Dropout', 'arguments': {'p': 0.1}}
    >>> describe(load_calls("!new:collections.Counter {}"), "drop")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: drop: collections.Counter cannot be exported: an exported folder is data, and ...
    """
    if isinstance(value, Call):
        return _describe_call(value, keys)
    if isinstance(value, dict):
        return {key: describe(child, f"{keys}.{key}") for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(child, f"{keys}.{number}") for number, child in enumerate(value)]
    return value


def _describe_call(call: Call, keys: str) -> Any:
    called, arguments = pydoc.locate(call.path), call.arguments
    if call.kind == "apply" and called is make_quantiser:
        described = describe(arguments, keys)
        made = described.pop("make")
        return _described(made["name"], {**made["arguments"], **described}, keys)
    if call.kind == "apply" and called is getattr:
        from .describing_speechbrain import parts_of

        owner, name = arguments
        if isinstance(owner, Call) and (parts := parts_of(owner)):
            return describe(parts[name], keys)
        return describe(getattr(make(describe(owner, keys)), name), keys)
    if call.kind == "apply" and getattr(called, "__name__", "") == "load_encoder":
        from ..recipe import load_encoder

        if called is load_encoder:
            if is_exported(folder := arguments["folder"]):
                return read_json(os.path.join(folder, CONFIG))["architecture"]["encoder"]
            return describe_run(os.path.join(folder, "hyperparams.yaml"))["encoder"]
    path = next((path for path in sorted(ALLOWED) if load_class(path) is called), None)
    if path is None or call.kind == "apply":
        raise ValueError(
            f"{keys}: {call.path} cannot be exported: an exported folder is data, and only classes "
            f"of brainquant.inference.allowed are built from it; use one of these, or give away "
            f"the folder of the run with your code"
        )
    arguments = describe(arguments, keys)
    if call.kind == "name":
        return {"name": path, "arguments": arguments}
    return _described(path, arguments, keys)


def _described(path: str, arguments: Any, keys: str) -> dict[str, Any]:
    """An object of an allowed class, with the arguments that data can hold."""
    described_class = load_class(path)
    if described_class is KMeansQuantizer and isinstance(file := arguments.get(CENTROIDS), str):
        shape = load_centroids(file, f"brainquant kmeans --output {file}").shape
        arguments = {**arguments, CENTROIDS: list(shape)}
    if issubclass(described_class, SpeechEncoder) and isinstance(arguments, list):
        arguments = dict(inspect.signature(described_class).bind(*arguments).arguments)
    if described_class is BestRQEncoder and arguments["transformer"]["class"] == TRANSFORMER:
        wrapped = {"transformer": arguments["transformer"]}  # as the encoder's constructor does
        arguments = {**arguments, "transformer": {"class": WRAPPER, "arguments": wrapped}}
    return {"class": path, "arguments": arguments}
