"""Reads a checkpoint of fairseq as data: tensors, numbers and texts; no code of it runs.

fairseq pickles objects of classes beside the weights: omegaconf's configuration, an
``argparse.Namespace``, dictionaries, numpy's numbers. ``torch.load`` with ``weights_only`` calls
nothing but a list of its own. Here the names of those classes are added to the list, but each
stands for ``StandIn``, which keeps what an object consists of and does nothing else.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from typing import Any

import torch

STAND_INS = (
    "argparse.Namespace",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.BooleanNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.StringNode",
    "fairseq.data.dictionary.Dictionary",
    *(
        f"fairseq.{module}.{name}Meter"
        for module in ("meters", "logging.meters")
        for name in ("Average", "Stopwatch", "Time")
    ),
    # What these consist of
    "builtins.bool", "builtins.dict", "builtins.float", "builtins.int", "builtins.list",
    "builtins.str",
    "typing.Any",
    # The losses and counts of the training
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
    "numpy.dtype", "numpy.ndarray",
)  # fmt: skip
# What torch 2.14 writes of a name that is not on its list, and of other faults
REFUSED = re.compile(r"GLOBAL (\S+)")
FAULT = re.compile(r"[Uu]npickler error: (.+?)(?: Check the documentation|$)")
DEEPEST = 30  # nested values of a configuration


class StandIn:
    """Takes the place of an object: keeps its attributes, and has no behaviour."""

    state: Any = None

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def plain_dict(*args: Any) -> dict[Any, Any]:
    """Takes the place of ``collections.defaultdict``: torch adds items to a ``dict`` only."""
    return {}


def read_pickle(path: str) -> dict[str, Any]:
    """The content of a file of ``torch.save``, with stand-ins for the objects of ``STAND_INS``.

    Raises
    ------
    ValueError
        If it is no such file, or names anything else; nothing is imported or called then.

    Example
    -------
    >>> import argparse
    >>> path = str(getfixture("tmp_path") / "checkpoint.pt")
    >>> torch.save({"args": argparse.Namespace(arch="wav2vec2"), "model": {}}, path)
    >>> plain(read_pickle(path)["args"])
    {'arch': 'wav2vec2'}
    """
    names: list[Any] = [(StandIn, name) for name in STAND_INS]
    names.append((plain_dict, "collections.defaultdict"))
    try:
        with torch.serialization.safe_globals(names), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about other pickles than its own
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path) or None
            )
    except pickle.UnpicklingError as error:
        text = " ".join(str(error).split())
        if refused := REFUSED.search(text):
            reason = f"it names {refused[1]:.100}"
        else:
            fault = FAULT.search(text)
            reason = f"{fault[1] if fault else text:.200}"
        raise ValueError(
            f"model: {path} holds more than weights and a configuration ({reason}), and nothing "
            f"of it was run; give a checkpoint that fairseq has written"
        ) from error
    except (ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError,
            TypeError, ValueError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"model: {path} cannot be read as a checkpoint ({reason}); download it again"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"model: {path} is no checkpoint of fairseq, which has keys and values")
    return content


def plain(value: Any, depth: int = 0) -> Any:
    """A configuration as dictionaries, lists and values, whatever class it had.

    Example
    -------
    >>> node = StandIn()
    >>> node.__setstate__({"_parent": None, "_val": 3})
    >>> plain({"layers": node})
    {'layers': 3}
    """
    if depth > DEEPEST:
        raise ValueError("its configuration is nested too deeply")
    if isinstance(value, StandIn):
        state = value.state
        if isinstance(state, dict):  # of omegaconf, of a Namespace
            state = state.get("_content", state.get("_val", state))
        return plain(state, depth + 1)
    if isinstance(value, dict):
        return {key: plain(child, depth + 1) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(child, depth + 1) for child in value]
    return value
