"""The parts of a run in its checkpoints."""

from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)

from ..errors import RunError
from ..ranks import world_size
from .checkpoints import Checkpointer


@register_checkpoint_hooks
class RunParts:
    """Saves and loads the parts of a run, as one file of a checkpoint.

    The file holds ``{name: part.state_dict()}``.

    Arguments
    ---------
    **parts : object
        The parts by name. They are loaded in this order. The checkpoint of an earlier version may
        lack a part that has ``without_state``, which is loaded in that case.

    Example
    -------
    >>> from brainquant.training.place import Place
    >>> run, other = RunParts(place=Place()), RunParts(place=Place())
    >>> run.parts["place"].optimizer_step = 7
    >>> path = Path(getfixture("tmpdir")) / "brain.ckpt"
    >>> run.collect()
    >>> run.save(path)
    >>> other.load(path, end_of_epoch=True)
    >>> other.parts["place"].optimizer_step
    7
    """

    def __init__(self, **parts: Any) -> None:
        self.parts = parts
        self.states: dict[str, dict] = {}

    def add_first(self, **parts: Any) -> None:
        """Adds parts that are loaded before the others."""
        self.parts = {**parts, **self.parts, **parts}

    def add_last(self, **parts: Any) -> None:
        """Adds parts that are loaded after the others."""
        self.parts.update(parts)

    def add_to(self, checkpointer: Any, modules: torch.nn.ModuleDict, epoch_counter: Any) -> None:
        """Makes a checkpointer save the parts, all modules and the epoch counter.

        A module that the ``recoverables`` of a YAML forget would be new after a resume.

        Raises
        ------
        ValueError
            If a kill can break the checkpoints, or a module has the name of something else.
        """
        if not isinstance(checkpointer, Checkpointer):
            raise ValueError(
                f"checkpointer: {type(checkpointer).__module__}.{type(checkpointer).__name__} "
                f"cannot be trusted after a kill (SpeechBrain 1.1.2); say checkpointer: "
                f"!new:brainquant.training.checkpoints.Checkpointer in your YAML"
            )
        for name in ("brain", "epoch_counter", "optimizer", "scaler"):
            if name in modules:
                raise ValueError(
                    f"modules: {name!r} is the name of another file of each checkpoint; give the "
                    f"module another name in your YAML"
                )
        # The parts first, since they know what has changed.
        checkpointer.recoverables = {
            "brain": self,
            **{name: r for name, r in checkpointer.recoverables.items() if name != "brain"},
            **modules,
            "epoch_counter": epoch_counter,
        }

    def collect(self) -> None:
        """Asks the parts for their states; every rank has to call this before it saves."""
        self.states = {name: part.state_dict() for name, part in self.parts.items()}

    @mark_as_saver
    def save(self, path: Path) -> None:
        """Writes the states that ``collect`` found; SpeechBrain calls this on one rank.

        Raises
        ------
        RunError
            If nothing was collected and there are several ranks.
        """
        if not self.states:  # a Brain of somebody else has called its checkpointer
            if world_size() > 1:
                raise RunError(
                    "a checkpoint has to be saved by brain.save(meta), on every rank, and not by "
                    "a method of brain.checkpointer"
                )
            self.collect()
        states, self.states = self.states, {}
        torch.save(states, path)

    @mark_as_loader
    def load(self, path: Path, end_of_epoch: bool) -> None:
        """Gives the parts their states.

        Raises
        ------
        RunError
            If the checkpoint is that of an earlier version.
        """
        states = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(states, dict):
            raise ValueError(f"holds a {type(states).__name__} in place of the parts of a run")
        if "optimizer_step" in states:
            raise RunError(
                f"{path.parent} is a checkpoint of an earlier version of brainquant, which this "
                f"one cannot read; begin in a new output_folder:, or go back to that version"
            )
        for name, part in self.parts.items():
            older = getattr(part, "without_state", None)
            part.load_state_dict(states[name] if older is None else states.get(name, older))
        self.parts["place"].resumed = not end_of_epoch
        # A run that is opened to be used, not to be trained, has no setup.
        if end_of_epoch or not getattr(self.parts.get("setup"), "same_batches", True):
            for part in self.parts.values():
                if hasattr(part, "forget_epoch"):
                    part.forget_epoch()
