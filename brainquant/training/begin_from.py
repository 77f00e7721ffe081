"""``begin_from:`` a run begins with the weights of another one; all else is new."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.checkpoints import CKPT_PREFIX, Checkpoint, ckpt_recency
from speechbrain.utils.logger import get_logger

from ..errors import RunError
from ..models.moving_teacher import MovingTeacher
from ..models.speech_encoder import SpeechEncoder, parts_without_parameters
from ..ranks import on_main_process
from .changed_keys import changed_keys, describe
from .checkpoint_contents import Damaged, read_state
from .checkpoint_folder import what_is_wrong
from .checkpoints import Checkpointer

logger = get_logger(__name__)


def load_weights(
    begin_from: str, modules: Mapping[str, torch.nn.Module], keys: Mapping[str, str]
) -> None:
    """Loads the parameters of another run into modules, if they have the same sizes.

    A module without parameters (such as a quantiser that is not trained) stays as the new run has
    made it from its own corpus and YAML. Nothing else of the checkpoint is read: optimiser,
    schedule, epochs and counts are new.

    Arguments
    ---------
    begin_from : str
        The ``output_folder`` of a run, whose last whole checkpoint is taken, or the folder of one
        of its checkpoints. It is not changed.
    modules : dict of str to torch.nn.Module
        Modules by their names in ``modules:``.
    keys : dict of str to str
        Values of this run by key; the log names those that the other run did not have.

    Raises
    ------
    RunError
        If there is no whole checkpoint, or its encoder does not fit.
    """
    checkpoint = on_main_process(lambda: find_checkpoint(begin_from))
    run = read(checkpoint, "brain") if "brain" in checkpoint.paramfiles else {}
    then = run.get("setup", {}).get("keys")
    other_keys = describe(changed_keys(then, keys)) if then else ""
    taken, new = [], []
    for name, module in modules.items():
        tensors = module.state_dict()
        if isinstance(module, MovingTeacher):
            new.append(f"{name} (a copy of the encoder)")
        elif next(module.parameters(), None) is None:
            new.append(f"{name} (of this YAML and corpus)")
        elif name not in checkpoint.paramfiles:
            new.append(f"{name} (not in the checkpoint)")
        else:
            saved = read(checkpoint, name)
            if isinstance(module, SpeechEncoder):
                own = parts_without_parameters(module)
                saved = {k: t for k, t in saved.items() if k.split(".")[0] not in own}
                saved |= {k: t for k, t in tensors.items() if k.split(".")[0] in own}
            misfit = first_misfit(saved, tensors)
            if misfit is None:
                module.load_state_dict(saved)
                taken.append(name)
            elif name == "encoder":
                raise RunError(
                    f"begin_from: the encoder of {checkpoint.path} is another one than that of "
                    f"the YAML ({other_keys or misfit}); set the sizes of that run, or "
                    f"begin_from: null"
                )
            else:
                new.append(f"{name} ({misfit})")
    if not taken:
        raise RunError(
            f"begin_from: {checkpoint.path} has none of the modules {', '.join(modules)}; name a "
            f"run of the same brain_class:, or set begin_from: null"
        )
    logger.info(
        f"Begins with weights of {checkpoint.path}: {', '.join(taken)}. New: "
        f"{', '.join([*new, 'optimiser, schedule, epochs and counts'])}"
    )
    if other_keys:
        logger.info(f"That run had other keys: {other_keys}")


def read(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """The state in a file of the checkpoint; a RunError if the file is damaged."""
    try:
        return read_state(checkpoint, name)
    except Damaged as damage:
        raise RunError(
            f"begin_from: {checkpoint.path} is damaged ({damage}); name another checkpoint of that "
            f"run, or set begin_from: null"
        ) from damage


def find_checkpoint(begin_from: str) -> Checkpoint:
    """The checkpoint that ``begin_from`` names.

    Example
    -------
    >>> find_checkpoint("results/none")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    brainquant.errors.RunError: begin_from: there is no folder results/none; ...
    """
    folder = Path(begin_from)
    if not folder.is_dir():
        raise RunError(
            f"begin_from: there is no folder {begin_from}; name the output_folder: of a run, or "
            f"set begin_from: null"
        )
    one = folder.name.startswith(CKPT_PREFIX)
    parent = folder.parent if one else folder / "save"
    found = Checkpointer(parent).list_checkpoints() if parent.is_dir() else []
    chosen = os.path.realpath(folder) if one else None
    found = [c for c in found if not one or os.path.realpath(c.path) == chosen]
    for checkpoint in sorted(found, key=ckpt_recency, reverse=True):
        if not what_is_wrong(checkpoint.path):
            return checkpoint
    raise RunError(
        f"begin_from: {begin_from} has no whole checkpoint; name the output_folder: of a run that "
        f"has saved one, or set begin_from: null"
    )


def first_misfit(
    saved: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]
) -> str | None:
    """The first tensor of a module that does not fit that of a checkpoint; None if all fit.

    Example
    -------
    >>> first_misfit({"w": torch.zeros(2)}, {"w": torch.zeros(3)})
    'w: 2 there, 3 here'
    """
    for name in [*tensors, *saved]:
        if name not in saved or name not in tensors:
            return f"{name}: only {'here' if name in tensors else 'there'}"
        there, here = saved[name].shape, tensors[name].shape
        if there != here:
            sizes = (" x ".join(map(str, shape)) or "1" for shape in (there, here))
            return "{}: {} there, {} here".format(name, *sizes)
    return None
