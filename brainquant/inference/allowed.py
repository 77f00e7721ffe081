"""What an exported folder may name: the classes that are built, and the values that they get."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Iterator
from typing import Any

SPEECHBRAIN = (
    "lobes.features.Fbank",
    "lobes.features.MFCC",
    "lobes.models.convolution.ConvolutionFrontEnd",
    "lobes.models.transformer.Branchformer.BranchformerEncoder",
    "lobes.models.transformer.Conformer.ConformerEncoder",
    "lobes.models.transformer.Transformer.TransformerEncoder",
    "lobes.models.transformer.TransformerASR.EncoderWrapper",
    "lobes.models.transformer.TransformerASR.TransformerASR",
    "lobes.models.wav2vec.EncoderWrapper",
    "nnet.activations.Swish",
    "nnet.CNN.Conv2d",
    "nnet.normalization.LayerNorm",
    "processing.features.InputNormalization",
    "utils.dynamic_chunk_training.DynChunkTrainConfig",
    "utils.dynamic_chunk_training.DynChunkTrainConfigRandomSampler",
)
OURS = (
    "models.BestRQEncoder",
    "models.ChannelsLastConv2d",
    "models.DynamicChunkEncoder",
    "models.InputNormalization",
    "models.MaskingEncoder",
    "models.Wav2Vec2Encoder",
    "models.Wav2Vec2Extractor",
    "quantisers.GumbelVectorQuantizer",
    "quantisers.KMeansQuantizer",
    "quantisers.LibraryQuantizer",
    "quantisers.OnlineCodebooks",
    "quantisers.RandomProjectionQuantizer",
    "quantisers.RefinedProjectionQuantizer",
    "quantisers.VectorQuantizer",
)
TORCH = (
    "Dropout", "ELU", "GELU", "Hardswish", "Identity", "LayerNorm", "LeakyReLU", "Linear", "Mish",
    "PReLU", "ReLU", "Sequential", "Sigmoid", "SiLU", "Softplus", "Tanh",
)  # fmt: skip
ALLOWED = frozenset(
    [f"speechbrain.{name}" for name in SPEECHBRAIN]
    + [f"brainquant.{name}" for name in OURS]
    + [f"torch.nn.{name}" for name in TORCH]
)
# The classes of vector-quantize-pytorch that LibraryQuantizer may be given by name
LIBRARY = (
    "FSQ", "LFQ", "ResidualFSQ", "ResidualSimVQ", "ResidualVQ", "SimVQ", "VectorQuantize",
)  # fmt: skip
# Of a KMeansQuantizer without clusters: a shape here, tensors are in the .safetensors
CENTROIDS = "centroids"

DEEPEST = 20  # nested values
MOST_VALUES = 10_000
MOST_PARTS = 1000  # layers, blocks, codebooks
PARTS = frozenset(
    ["groups", "num_blocks", "num_codebooks", "num_decoder_layers", "num_encoder_layers"]
    + ["num_layers", "num_layers_per_block", "num_quantizers", "weight_proj_depth"]
)
MOST_LEVELS = 2**20  # codes of a finite scalar quantiser, which makes a table of all
TEXT = re.compile(r"[A-Za-z0-9_ +-]{0,64}")


def load_class(path: str) -> Any:
    """A class of the table; a ValueError if a path is not in it, and then nothing is imported.

    Example
    -------
    >>> load_class("torch.nn.GELU")
    <class 'torch.nn.modules.activation.GELU'>
    >>> load_class("os.system")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: os.system is not a class that an exported folder may name; use one of ...
    """
    if path not in ALLOWED:
        raise ValueError(
            f"{path:.100} is not a class that an exported folder may name; use one of "
            f"brainquant.inference.allowed.ALLOWED, or load the folder of the run itself"
        )
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def check_description(description: Any) -> None:
    """Checks that a description has nothing but allowed classes and plain arguments.

    Arguments
    ---------
    description : object
        What is to be built, of whatever origin.

    Raises
    ------
    ValueError
        With the keys that lead to the value that is not allowed.

    Example
    -------
    >>> fbank = {"class": "speechbrain.lobes.features.Fbank", "arguments": {"n_mels": "../x"}}
    >>> check_description({"encoder": fbank, "quantiser": None})
    Traceback (most recent call last):
    ValueError: encoder.n_mels: '../x' is not allowed; a text is a name of a few letters here
    """
    if not isinstance(description, dict) or set(description) != {"encoder", "quantiser"}:
        raise ValueError("architecture must have the keys encoder and quantiser, and no others")
    for number, (keys, value) in enumerate(_values(description, ())):
        if number > MOST_VALUES:
            raise ValueError(f"architecture has more than {MOST_VALUES} values")
        if fault := _fault(value, keys[-1] if keys else ""):
            raise ValueError(f"{'.'.join(keys)}: {fault}")


def _values(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each value in a tree, from the root, with the keys that lead to it."""
    yield keys, value
    if len(keys) > DEEPEST:
        raise ValueError(f"{'.'.join(keys)}: values are nested too deeply")
    if isinstance(value, dict):
        children = value.get("arguments", {}) if is_call(value) else value
    else:
        children = value
    if isinstance(children, dict):
        for key, child in children.items():
            yield from _values(child, (*keys, str(key)))
    elif isinstance(children, list):
        for number, child in enumerate(children):
            yield from _values(child, (*keys, str(number)))


def is_call(value: Any) -> bool:
    """Whether a value names a class: to build an object of it, or to pass it on."""
    return isinstance(value, dict) and ("class" in value or "name" in value)


def _fault(value: Any, key: str) -> str | None:
    """What is wrong with a value, without those in it; None if nothing is."""
    if isinstance(value, dict):
        if not is_call(value):
            return None
        if len(value) != 2 or "arguments" not in value:
            return "a class has the keys class (or name) and arguments, and no others"
        path, arguments = value.get("class", value.get("name")), value["arguments"]
        if not isinstance(path, str) or not isinstance(arguments, (dict, list)):
            return "class is a dotted path, and arguments are a mapping or a list"
        try:
            load_class(path)
        except ValueError as error:
            return str(error)
        return _fault_of_arguments(path, arguments)
    if value is None or isinstance(value, (bool, list)):
        return None
    if isinstance(value, int):
        if key in PARTS and not 0 <= value <= MOST_PARTS:
            return f"must be from 0 to {MOST_PARTS}, got {str(value):.30}"
        return None if abs(value) < 2**63 else "must fit into 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"must be finite, got {value}"
    if isinstance(value, str):
        if TEXT.fullmatch(value):
            return None
        return f"{value[:60]!r} is not allowed; a text is a name of a few letters here"
    return f"a value of type {type(value).__name__} is not allowed"


def _fault_of_arguments(path: str, arguments: Any) -> str | None:
    name = path.rpartition(".")[2]
    if name in ("KMeansQuantizer", "LibraryQuantizer") and not isinstance(arguments, dict):
        return "arguments must be a mapping"
    if name == "KMeansQuantizer" and arguments.get("clusters") is None:
        shape = arguments.get(CENTROIDS)
        sizes = shape if isinstance(shape, list) else []
        if len(sizes) != 2 or not all(type(size) is int and size > 0 for size in sizes):
            return f"{CENTROIDS}: must be the shape [clusters, input_dim], got {str(shape):.60}"
    if name == "LibraryQuantizer":
        if arguments.get("name") not in LIBRARY:
            return f"name: must be one of {', '.join(LIBRARY)}"
        levels = arguments.get("levels", [])
        if not isinstance(levels, list) or not all(type(level) is int for level in levels):
            return "levels: must be a list of whole numbers"
        if math.prod(map(abs, levels)) > MOST_LEVELS:
            return f"levels: must make at most {MOST_LEVELS} codes"
    return None
