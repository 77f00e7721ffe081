"""The modules of an exported folder, built from its config.json: data that cannot run code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from ..models import SpeechEncoder
from ..quantisers import Quantiser
from .allowed import CENTROIDS, check_description, is_call, load_class
from .sizes import Shapes, check_sizes, skeleton


def build(description: Any, shapes: Shapes | None = None) -> tuple[SpeechEncoder, Quantiser | None]:
    """The encoder and the quantiser that a description describes, with random parameters.

    Arguments
    ---------
    description : dict
        ``encoder`` and ``quantiser``, as ``describe_run`` gives them. An object is
        ``{"class": path, "arguments": {...}}``; a class that is passed on is ``{"name": path,
        "arguments": {...}}``. Paths are those of ``brainquant.inference.allowed``; arguments are
        numbers, names, booleans, None, lists, mappings and objects. Nothing else is built, and no
        text is a path or code.
    shapes : Mapping of str to tuple of int or None
        The tensors that both will get, ``encoder.`` or ``quantiser.`` before their names. If they
        do not fit, the error comes before any memory is taken.

    Returns
    -------
    encoder : SpeechEncoder
    quantiser : Quantiser or None

    Raises
    ------
    ValueError
        If anything in it is not allowed, or the modules do not fit.

    Example
    -------
    >>> layers = {"d_model": 16, "num_layers": 1, "nhead": 2, "d_ffn": 32}
    >>> path = "speechbrain.lobes.models.transformer.Transformer.TransformerEncoder"
    >>> layers = {"class": path, "arguments": layers}
    >>> transformer = {"in_dim": 8, "embedding_dim": 16, "latent_encoder": layers}
    >>> transformer = {"class": "brainquant.models.MaskingEncoder", "arguments": transformer}
    >>> extractor = {"out_channels": [8, 8, 8, 8, 8, 8, 8]}
    >>> extractor = {"class": "brainquant.models.Wav2Vec2Extractor", "arguments": extractor}
    >>> encoder = {"extractor": extractor, "transformer": transformer}
    >>> encoder = {"class": "brainquant.models.Wav2Vec2Encoder", "arguments": encoder}
    >>> build({"encoder": encoder, "quantiser": None})[0].dim
    16
    >>> layers["class"] = "os.system"
    >>> build({"encoder": encoder, "quantiser": None})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: encoder...latent_encoder: os.system is not a class that an exported folder may ...
    """
    check_description(description)
    with torch.random.fork_rng(devices=[]):
        if shapes is not None:
            with one_line("architecture"):
                check_sizes(lambda: _make_parts(description, skeleton), shapes)
        parts = _make_parts(description, _call)
    encoder, quantiser = parts["encoder"], parts["quantiser"]
    if not isinstance(encoder, SpeechEncoder):
        raise ValueError(
            f"encoder: must be an encoder of brainquant.models, got {type(encoder).__name__}"
        )
    if quantiser is not None and not isinstance(quantiser, Quantiser):
        raise ValueError(
            f"quantiser: must be a quantiser of brainquant, got {type(quantiser).__name__}"
        )
    return encoder, quantiser


def _make_parts(description: dict[str, Any], make_encoder: Callable[..., Any]) -> dict[str, Any]:
    encoder = description["encoder"]
    if not isinstance(encoder, dict) or "class" not in encoder:
        raise ValueError("encoder: must have a class")
    arguments = _make_arguments(encoder["arguments"])
    return {
        "encoder": make_encoder(load_class(encoder["class"]), arguments),
        "quantiser": make(description["quantiser"]),
    }


def make(value: Any) -> Any:
    """The object that a part of a description describes; ``build`` checks it first.

    Example
    -------
    >>> make({"class": "torch.nn.Dropout", "arguments": {"p": 0.1}})
    Dropout(p=0.1, inplace=False)
    """
    if isinstance(value, list):
        return [make(child) for child in value]
    if not isinstance(value, dict):
        return value
    if not is_call(value):
        return {key: make(child) for key, child in value.items()}
    arguments = _make_arguments(value["arguments"])
    if "name" in value:
        named = load_class(value["name"])
        if not arguments:
            return named  # as !name: of hyperpyyaml
        if isinstance(arguments, list):
            return partial(named, *arguments)
        return partial(named, **arguments)
    if value["class"].endswith(".KMeansQuantizer") and arguments.get(CENTROIDS) is not None:
        arguments[CENTROIDS] = torch.zeros(arguments[CENTROIDS])
    return _call(load_class(value["class"]), arguments)


def _make_arguments(arguments: Any) -> Any:
    """Arguments by position or by keyword, one of which may be called ``name``."""
    if isinstance(arguments, list):
        return make(arguments)
    return {key: make(value) for key, value in arguments.items()}


def _call(function: Callable[..., Any], arguments: Any) -> Any:
    with one_line(getattr(function, "__name__", "a class")):
        return function(*arguments) if isinstance(arguments, list) else function(**arguments)


@contextmanager
def one_line(name: str) -> Iterator[None]:
    """Makes whatever a constructor raises a ValueError of one line that begins with a name.

    Example
    -------
    >>> with one_line("Linear"):
    ...     raise RuntimeError("sizes\\ndo not fit")
    Traceback (most recent call last):
    ValueError: Linear: sizes do not fit
    """
    try:
        yield
    except Exception as error:  # those of SpeechBrain and torch raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name}: {reason[:500]}") from error
