"""The parts of a run in its checkpoints."""

from pathlib import Path

import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)

from ..errors import RunError
from .place import Place


@register_checkpoint_hooks
class RunParts:
    """Saves and loads the parts of a run, as one file of a checkpoint.

    The file holds ``{name: part.state_dict()}``.

    Arguments
    ---------
    place : Place
        Is loaded also where a run is opened to be used, not to be trained.

    Attributes
    ----------
    parts : dict
        The parts by name. They are loaded in this order.

    Example
    -------
    >>> run, other = RunParts(Place()), RunParts(Place())
    >>> run.parts = {"place": run.place}
    >>> run.place.optimizer_step = 7
    >>> path = Path(getfixture("tmpdir")) / "brain.ckpt"
    >>> run.collect()
    >>> run.save(path)
    >>> other.load(path, end_of_epoch=True)
    >>> other.place.optimizer_step
    7
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.parts: dict = {}
        self.states: dict[str, dict] = {}

    def collect(self) -> None:
        """Asks the parts for their states; every rank has to call this before it saves."""
        self.states = {name: part.state_dict() for name, part in self.parts.items()}

    @mark_as_saver
    def save(self, path: Path) -> None:
        """Writes the states that ``collect`` found; SpeechBrain calls this on one rank."""
        torch.save(self.states, path)
        self.states = {}

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
        if not self.parts:
            self.place.load_state_dict(states["place"])
            return
        for name, part in self.parts.items():
            part.load_state_dict(states[name])
        self.place.resumed = not end_of_epoch
        if end_of_epoch or not self.parts["setup"].same_batches:
            for part in self.parts.values():
                if hasattr(part, "forget_epoch"):
                    part.forget_epoch()
