"""Reads the files of a checkpoint, as data and never as code."""

import math
import os
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from speechbrain.utils.checkpoints import (
    DEFAULT_LOAD_HOOKS,
    METAFNAME,
    Checkpoint,
    get_default_hook,
)

from ..errors import RunError

# Error messages of torch 2.11 for a file without tensors, and for tensors of another model.
NO_TENSORS = re.compile(r"PytorchStreamReader|magic number|corrupt|expected torch\.Tensor")
OTHER_MODEL = re.compile(r"state_dict|loaded state dict|must match")
# What a reader raises if the file does not hold what it expects.
WRONG_CONTENT = (
    pickle.UnpicklingError, EOFError, OSError, KeyError, IndexError, TypeError, ValueError,
    AttributeError,
)  # fmt: skip

LoadHook = Callable[[Any, Path, bool], Any]


class Damaged(Exception):
    """A file of a checkpoint does not hold what was saved; the message names the file."""


class OtherModel(RunError):
    """A checkpoint is whole, but belongs to another model than the YAML's."""


def other_model(path: str | Path, reason: str) -> OtherModel:
    """Makes the error for a checkpoint of another model.

    Arguments
    ---------
    path : str or pathlib.Path
        The checkpoint, or the folder that holds it.
    reason : str
        What does not fit.

    Returns
    -------
    error : OtherModel

    Example
    -------
    >>> str(other_model("save/CKPT+1", "d_model: 16 then, 32 now")).split(";")[0]
    'the checkpoint in save/CKPT+1 is not of this YAML (d_model: 16 then, 32 now)'
    """
    return OtherModel(
        f"the checkpoint in {path} is not of this YAML ({reason}); go back to the YAML and "
        f"options that it was made with, or begin in a new output_folder:"
    )


def read_meta(folder: Path) -> dict[str, Any]:
    """Reads the meta of a checkpoint from its ``CKPT.yaml``.

    Arguments
    ---------
    folder : pathlib.Path
        The checkpoint.

    Returns
    -------
    meta : dict
        Has at least ``unixtime`` and ``end-of-epoch``, which SpeechBrain reads.

    Raises
    ------
    Damaged
        If one of these two keys is missing or has a wrong value, or the file cannot be read.

    Example
    -------
    >>> folder = Path(getfixture("tmpdir"))
    >>> _ = (folder / "CKPT.yaml").write_text("unixtime: soon")
    >>> read_meta(folder)
    Traceback (most recent call last):
    brainquant.training.checkpoint_contents.Damaged: unixtime in CKPT.yaml is 'soon', not a time
    """
    try:
        meta = yaml.safe_load((folder / METAFNAME).read_bytes())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise Damaged(f"{METAFNAME} cannot be read: {one_line(error)}") from error
    if not isinstance(meta, dict):
        raise Damaged(f"{METAFNAME} has no keys")
    for key, kind, is_right in (
        ("unixtime", "a time", is_time),
        ("end-of-epoch", "True or False", lambda value: isinstance(value, bool)),
    ):
        if key not in meta:
            raise Damaged(f"{METAFNAME} lacks the key {key!r}")
        if not is_right(meta[key]):
            raise Damaged(f"{key} in {METAFNAME} is {meta[key]!r}, not {kind}")
    return meta


def is_number(value: Any) -> bool:
    """Whether checkpoints can be sorted by a value of their meta.

    Example
    -------
    >>> [is_number(value) for value in (1, 0.5, float("nan"), True, "1")]
    [True, True, False, False, False]
    """
    if type(value) not in (int, float):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:  # an int that is too large for a float
        return False


def is_time(value: Any) -> bool:
    """Whether a value is a time in seconds."""
    return is_number(value) and math.isfinite(value)


def load_states(
    recoverables: Mapping[str, Any],
    checkpoint: Checkpoint,
    *,
    hooks: Mapping[str, LoadHook] | None = None,
    is_optional: Callable[[str], bool] | None = None,
) -> None:
    """Loads the state of each recoverable from a checkpoint.

    (SpeechBrain 1.1.2 raises a bare KeyError if a file is missing. Its other errors do not name
    the file. It runs pickled code if TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set.)

    Arguments
    ---------
    recoverables : dict
        What to load into, by name; the name is also that of the file.
    checkpoint : speechbrain.utils.checkpoints.Checkpoint
        The checkpoint.
    hooks : dict or None
        Functions that load a recoverable, by its name. SpeechBrain's function for the type loads
        all others.
    is_optional : callable or None
        Whether the file of a name may be missing. None: no file may be missing.

    Raises
    ------
    Damaged
        If a file does not hold what was saved. Earlier recoverables are loaded by then.
    OtherModel
        If the checkpoint belongs to another model.
    """
    for name, recoverable in recoverables.items():
        path = checkpoint.paramfiles.get(name)
        if path is None and not (is_optional and is_optional(name)):
            raise other_model(checkpoint.path, f"it has no file for {name}")
        hook = (hooks or {}).get(name) or get_default_hook(recoverable, DEFAULT_LOAD_HOOKS)
        if hook is None:
            raise ValueError(
                f"recoverables: {name} is a {type(recoverable).__name__}, and SpeechBrain cannot "
                f"load one; add a function for it to custom_load_hooks: of the checkpointer"
            )
        if path is not None:
            load_state(hook, recoverable, path, checkpoint)


def load_state(hook: LoadHook, recoverable: Any, path: Path, checkpoint: Checkpoint) -> None:
    """Loads one recoverable; raises ``Damaged`` or ``OtherModel`` as ``load_states`` does."""
    try:
        with tensors_only():
            hook(recoverable, path, checkpoint.meta["end-of-epoch"])
    except RunError:
        raise
    except (RuntimeError, *WRONG_CONTENT) as error:
        text = one_line(error)
        if not NO_TENSORS.search(text) and isinstance(error, (RuntimeError, ValueError)):
            if OTHER_MODEL.search(text):
                raise other_model(checkpoint.path, text) from error
            if isinstance(error, RuntimeError):  # for example, an error of the device
                raise
        if isinstance(error, pickle.UnpicklingError):
            # torch's own text advises to load the file without protection.
            text = "holds other things than tensors, numbers and texts; none of it was run"
        elif isinstance(error, KeyError):
            text = f"lacks {text}"
        raise Damaged(f"{path.name}: {text}") from error


def read_state(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """Reads the state under a name of a checkpoint, without loading it into a recoverable.

    Raises
    ------
    Damaged
        If the file does not hold what was saved.
    """
    state = {}

    def read(state, path, _):
        state.update(torch.load(path, map_location="cpu", weights_only=True))

    load_state(read, state, checkpoint.paramfiles[name], checkpoint)
    return state


@contextmanager
def tensors_only() -> Iterator[None]:
    """Keeps ``torch.load`` from running pickled code, whatever the environment variables are."""
    wanted = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def one_line(error: Exception) -> str:
    """The first 300 characters of an error's text, without line breaks."""
    return " ".join(str(error).split())[:300] or type(error).__name__
