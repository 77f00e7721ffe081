"""A pull of weights towards those that a run began with, against forgetting."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..errors import RunError


class PullToStart:
    """Moves parameters a little towards their first values in each step.

    A step with the learning rate lr begins with p <- p - lr * strength * (p - p_start). This is
    L2-SP (Li et al., https://arxiv.org/abs/1802.01483), decoupled from the gradient as the weight
    decay of AdamW is: the optimiser's moments know nothing of it. So a strength means the same for
    every optimiser, and a layer with a lower rate is pulled less in a step, as it also moves less.

    The first values take as much memory as the parameters, in checkpoints too.

    Arguments
    ---------
    strength : float
        0 keeps and changes nothing.
    module : torch.nn.Module
        Its trainable parameters are pulled.

    Example
    -------
    >>> layer = torch.nn.Linear(1, 1, bias=False)
    >>> pull = PullToStart(0.5, layer)
    >>> pull.begin()
    >>> _ = torch.nn.init.constant_(layer.weight, pull.start["weight"].item() + 1)
    >>> pull.apply([{"params": [layer.weight], "lr": 0.2}], torch.tensor(True))
    >>> round((layer.weight - pull.start["weight"]).item(), 4)
    0.9
    """

    without_state: dict = {}  # checkpoints of earlier versions lack this part

    def __init__(self, strength: float, module: torch.nn.Module) -> None:
        self.strength = strength
        self.module = module
        self.start: dict[str, torch.Tensor] = {}

    def begin(self) -> None:
        """Takes the present values as the first ones."""
        if self.strength:
            self.start = {name: p.detach().clone() for name, p in self._trainable().items()}

    @torch.no_grad()
    def apply(self, groups: Iterable[Mapping[str, Any]], good: torch.Tensor) -> None:
        """Moves the parameters; comes before the optimiser's own change of them.

        Arguments
        ---------
        groups : list of dict
            The parameter groups of the optimiser, with the learning rates of this step.
        good : torch.Tensor
            Whether the step is taken. The host does not read it: nothing waits for the device.
        """
        if not self.start:
            return
        start = {id(p): self.start[name] for name, p in self._trainable().items()}
        for group in groups:
            share = good * min(float(group["lr"]) * self.strength, 1.0)
            for parameter in group["params"]:
                if id(parameter) in start:
                    first = start[id(parameter)]
                    parameter.lerp_(first, share.to(first.device, first.dtype))

    def state_dict(self) -> dict:
        """The first values, for a checkpoint; nothing if there is no pull."""
        return {"start": self.start} if self.start else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the first values of ``state_dict``.

        Raises
        ------
        RunError
            If the run began without the pull: its first values are not known.
        """
        if not self.strength:
            return
        parameters, start = self._trainable(), state.get("start", {})
        if missing := [name for name in parameters if name not in start]:
            raise RunError(
                f"pull_to_start is {self.strength:g}, but the checkpoint lacks the weights that "
                f"{missing[0]} began with: the run began without the pull; set pull_to_start: 0, "
                f"or begin in a new output_folder: with begin_from: this one"
            )
        self.start = {name: start[name].to(p.device) for name, p in parameters.items()}

    def _trainable(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}
