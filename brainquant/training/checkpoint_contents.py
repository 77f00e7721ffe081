"""What the files of a checkpoint hold: its meta, and states, read as data and never as code."""

import math
import os
import pickle
import re
from contextlib import contextmanager

import torch
import yaml
from speechbrain.utils.checkpoints import DEFAULT_LOAD_HOOKS, METAFNAME, get_default_hook

from ..errors import RunError

# Errors of torch 2.11: of a file that holds no tensors, and of the tensors of another model.
NO_TENSORS = re.compile(r"PytorchStreamReader|magic number|corrupt|expected torch\.Tensor")
OTHER_MODEL = re.compile(r"state_dict|loaded state dict|must match")
# What reading raises where a file holds something else than its reader expects.
WRONG_CONTENT = (
    pickle.UnpicklingError, EOFError, OSError, KeyError, IndexError, TypeError, ValueError,
    AttributeError,
)  # fmt: skip


class Damaged(Exception):
    """A file of a checkpoint does not hold what was saved; the message names it."""


class OtherModel(RunError):
    """A checkpoint is whole, and of another model than that of the YAML."""


def other_model(place, reason):
    """The error of a checkpoint that is of another model.

    Arguments
    ---------
    place : str or pathlib.Path
        The checkpoint, or the folder that it is in.
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
        f"the checkpoint in {place} is not of this YAML ({reason}); go back to the YAML and "
        f"options that it was made with, or begin in a new output_folder:"
    )


def read_meta(folder):
    """The meta of a checkpoint.

    Arguments
    ---------
    folder : pathlib.Path
        Of the checkpoint.

    Returns
    -------
    meta : dict
        With ``unixtime`` and ``end-of-epoch``, which SpeechBrain reads.

    Raises
    ------
    Damaged
        Where ``CKPT.yaml`` holds something else.

    Example
    -------
    >>> from pathlib import Path
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
    for key, what, right in (
        ("unixtime", "a time", is_time),
        ("end-of-epoch", "True or False", lambda value: isinstance(value, bool)),
    ):
        if key not in meta:
            raise Damaged(f"{METAFNAME} lacks the key {key!r}")
        if not right(meta[key]):
            raise Damaged(f"{key} in {METAFNAME} is {meta[key]!r}, not {what}")
    return meta


def is_number(value):
    """Whether checkpoints can be sorted by a value of their meta.

    Example
    -------
    >>> [is_number(value) for value in (1, 0.5, float("nan"), True, "1")]
    [True, True, False, False, False]
    """
    try:
        return type(value) in (int, float) and not math.isnan(value)
    except OverflowError:  # an int that no float can hold
        return False


def is_time(value):
    """Whether a value is a time in seconds."""
    return is_number(value) and math.isfinite(value)


def load_states(recoverables, checkpoint, *, hooks=None, is_optional=None):
    """Gives each thing the state that a checkpoint holds of it.

    (SpeechBrain 1.1.2 ends in a KeyError where the file of a thing is missing, names the file in no
    other error either, and runs pickled code where TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set.)

    Arguments
    ---------
    recoverables : dict
        Things by the names of their files.
    checkpoint : speechbrain.utils.checkpoints.Checkpoint
        The checkpoint.
    hooks : dict or None
        How things are loaded, by name; SpeechBrain's way where a name is not in it.
    is_optional : callable or None
        Of a name: whether its file may be missing; None: none may.

    Raises
    ------
    Damaged
        Where a file does not hold what was saved. Things before it have their state already.
    OtherModel
        Where the checkpoint is one of other things.
    """
    for name, thing in recoverables.items():
        path = checkpoint.paramfiles.get(name)
        if path is None and not (is_optional and is_optional(name)):
            raise other_model(checkpoint.path, f"it has no file for {name}")
        hook = (hooks or {}).get(name) or get_default_hook(thing, DEFAULT_LOAD_HOOKS)
        if hook is None:
            raise ValueError(
                f"recoverables: nothing is known of how to load {name}, a {type(thing).__name__}; "
                f"give the checkpointer a custom_load_hooks: for it"
            )
        if path is not None:
            load_state(hook, thing, path, checkpoint)


def load_state(hook, thing, path, checkpoint):
    """Loads one thing; a damaged file and a file of another model are different errors."""
    try:
        with tensors_only():
            hook(thing, path, checkpoint.meta["end-of-epoch"])
    except RunError:
        raise
    except (RuntimeError, *WRONG_CONTENT) as error:
        text = one_line(error)
        if not NO_TENSORS.search(text) and isinstance(error, (RuntimeError, ValueError)):
            if OTHER_MODEL.search(text):
                raise other_model(checkpoint.path, text) from error
            if isinstance(error, RuntimeError):  # of the device, for one
                raise
        if isinstance(error, pickle.UnpicklingError):
            # torch's own text advises to load it all the same.
            text = "holds something else than tensors, numbers and texts; none of it was run"
        elif isinstance(error, KeyError):
            text = f"lacks {text}"
        raise Damaged(f"{path.name}: {text}") from error


def read_state(checkpoint, name):
    """The state that a checkpoint holds under a name, without giving it to anything.

    Returns
    -------
    state : dict

    Raises
    ------
    Damaged
        Where the file does not hold what was saved.
    """
    state = {}

    def read(state, path, _):
        state.update(torch.load(path, map_location="cpu", weights_only=True))

    load_state(read, state, checkpoint.paramfiles[name], checkpoint)
    return state


@contextmanager
def tensors_only():
    """Keeps ``torch.load`` from running pickled code, whatever the environment says."""
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


def one_line(error):
    """The beginning of an error's text, without line breaks."""
    return " ".join(str(error).split())[:300] or type(error).__name__
