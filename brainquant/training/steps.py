"""Optimiser steps that take in nothing that is not finite, and wait for no device."""

import math
from collections.abc import Callable
from typing import Any

import torch
from speechbrain.utils.logger import get_logger

from ..errors import RunError
from ..ranks import gather_over_ranks
from .buffers import BufferCopies
from .place import check_count
from .schedules import Schedule

logger = get_logger(__name__)

# Called with the number of a step, what was not finite ("the loss"), and the IDs of its batches.
WriteStep = Callable[[int, str, list[list[str]]], None]
# Called with whether the step is taken, as a tensor on the device.
StepHook = Callable[[torch.Tensor], None]


class GradientStep:
    """The optimiser steps of a run.

    A step clips the gradients of all parameters, then changes them, unless a loss or a gradient is
    not finite on some rank. Such a step is left out: it is counted, but parameters, optimiser and
    buffers (moving averages of a quantiser or of a normalisation) stay as they were. A quantiser
    whose codebooks follow the frames moves once in a step.

    (SpeechBrain 1.1.2 clips the first parameter group only, clips to zero with
    ``max_grad_norm: 0``, and climbs the gradient with -1. It steps on NaN gradients. At a loss that
    is not finite one rank stops, and the others wait. It waits for the device at each loss.)

    Whether steps were left out is known after ``read``, which waits for the device: a Brain calls
    it before a log point, a validation or a checkpoint. With gradient scaling (fp16), and with
    optimisers that cannot skip a step on the device (``fused: True`` can), each step waits.

    Arguments
    ---------
    modules : torch.nn.Module
        The modules that are trained.
    optimizer : torch.optim.Optimizer
        Changes their parameters.
    lr_schedule : callable or None
        See ``brainquant.training.schedules``.
    scaler : torch.amp.GradScaler
        Scales the loss, for fp16.
    max_grad_norm : float
        Norm that gradients are clipped to; 0 or less for no clipping.
    patience : int
        Steps in a row that may be left out.
    write_step : callable
        Is called, on every rank, for each step that is left out.
    before_step : callable
        Is called with each step's learning rates set, before the optimiser changes the parameters.
    after_step : callable
        Is called when the optimiser has changed them, or has left the step out.
    tick : callable
        Is called with the name of each phase.

    Attributes
    ----------
    grad_norm : float
        Of the last step that was read, before clipping.
    lr_then : float or None
        Learning rate of the checkpoint that was loaded.
    nonfinite_in_a_row : int
        Steps that were left out since the last good one.

    Example
    -------
    >>> layer = torch.nn.Linear(1, 1)
    >>> sgd = torch.optim.SGD(layer.parameters(), lr=0.1)
    >>> scaler = torch.amp.GradScaler("cpu", enabled=False)
    >>> steps = GradientStep(layer, sgd, None, scaler, write_step=print)
    >>> before = layer.weight.item()
    >>> for number, factor in enumerate([float("nan"), 1.0], start=1):
    ...     steps.begin_batch(["a"])
    ...     steps.backward(factor * layer(torch.ones(1)).sum())
    ...     steps.take(number)
    ...     steps.read()
    1 the loss [['a']]
    >>> round(before - layer.weight.item(), 3), steps.nonfinite_in_a_row
    (0.1, 0)
    """

    def __init__(
        self,
        modules: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_schedule: Callable | None,
        scaler: torch.amp.GradScaler,
        *,
        max_grad_norm: float = 0.0,
        patience: int = 3,
        write_step: WriteStep,
        before_step: StepHook = lambda good: None,
        after_step: StepHook = lambda good: None,
        tick: Callable[[str], None] = lambda phase: None,
    ) -> None:
        self.modules = modules
        self.optimizer = optimizer
        self.scaler = scaler
        self.limit = max_grad_norm if max_grad_norm > 0 else math.inf
        self.patience = patience
        self.write_step = write_step
        self.before_step = before_step
        self.after_step = after_step
        self.tick = tick
        self.grad_norm = math.nan
        self.lr_then: float | None = None
        self.nonfinite_in_a_row = 0
        self.schedule = Schedule(lr_schedule, optimizer)
        # GradScaler, too, lets such optimisers skip a step on the device.
        on_device = getattr(optimizer, "_step_supports_amp_scaling", False)
        self.skips_on_device = on_device and not scaler.is_enabled()
        self.start_epoch()

    def start_epoch(self) -> None:
        """Forgets the batches of a step that was not taken."""
        self.batches: list[list[str]] = []  # the IDs of each batch of this step
        self.losses_finite: torch.Tensor | None = None  # of this step, on the device
        self.unread: list[tuple[int, list[list[str]], torch.Tensor]] = []
        self.finite_losses: float | torch.Tensor = 0.0  # of the epoch: their sum and number
        self.buffers = BufferCopies(self.modules)
        # Quantisers that gather the batches of a step: see brainquant.quantisers.base.
        self.gatherers: list[Any] = [m for m in self.modules.modules() if hasattr(m, "end_step")]

    def begin_batch(self, ids: list[str]) -> None:
        """Begins a batch of these clips: comes before its forward pass."""
        self.batches.append(ids)
        for module in self.gatherers:
            module.begin_step()

    def backward(self, loss: torch.Tensor, share: float = 1.0) -> None:
        """Adds the gradients of a batch, whose loss has this share in the loss of the step."""
        self.tick("the backward pass")
        finite = torch.isfinite(loss.detach())
        before = self.losses_finite
        self.losses_finite = finite if before is None else finite & before
        finite_loss = torch.where(finite, loss.detach(), 0.0)
        self.finite_losses = self.finite_losses + torch.stack([finite_loss, finite]).double()
        # A loss that is not finite makes its gradients so: all ranks then see it in theirs.
        poison = torch.where(finite, 1.0, math.nan)
        self.scaler.scale(loss * share * poison).backward()

    def mean_loss(self) -> float:
        """The mean of the finite losses of the epoch; waits for the device."""
        total, batches = torch.as_tensor(self.finite_losses).expand(2).tolist()
        return total / max(batches, 1)

    def take(self, number: int) -> None:
        """Changes the parameters, or leaves the step out; steps are numbered from 1."""
        self.tick("the optimiser's step")
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.limit)
        good = norm.isfinite()
        self.schedule.set_rates(number)
        self.before_step(good)
        if self.skips_on_device:
            step_on_device(self.optimizer, (~good).float())
        elif good:
            self.scaler.step(self.optimizer)
        self.after_step(good)
        for module in self.gatherers:
            module.end_step()
        self.buffers.keep_if(good)
        assert self.losses_finite is not None, "backward comes before"
        outcome = torch.stack([norm.float(), self.losses_finite.to(norm.device).float()])
        self.unread.append((number, self.batches, outcome))
        if not self.skips_on_device:
            self.read()
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.batches, self.losses_finite = [], None

    def read(self) -> None:
        """Finds the steps that were left out; all ranks call this after the same steps.

        Raises
        ------
        RunError
            If more than ``patience`` steps in a row were left out.
        """
        steps, self.unread = self.unread, []
        if not steps:
            return
        outcomes = torch.stack([outcome for *_, outcome in steps]).tolist()
        for (number, batches, _), (self.grad_norm, losses_finite) in zip(steps, outcomes):
            if math.isfinite(self.grad_norm):
                self.nonfinite_in_a_row = 0
            else:
                self._leave_out(number, batches, bool(losses_finite))

    def _leave_out(self, number, batches, losses_finite):
        # Gradients are the same on all ranks: each of them comes here.
        ranks = gather_over_ranks((batches, losses_finite))
        losses_finite = all(finite for _, finite in ranks)
        if losses_finite and self.scaler.is_enabled() and self.scaler.get_scale() > 1.0:
            return  # fp16 finds its scale by trial: the run is not at fault
        self.nonfinite_in_a_row += 1
        what = "a gradient" if losses_finite else "the loss"
        self.write_step(number, what, [ids for batches, _ in ranks for ids in batches])
        text = (
            f"step {number} left out: {what} is not finite "
            f"({self.nonfinite_in_a_row} in a row, nonfinite_patience {self.patience})"
        )
        if self.nonfinite_in_a_row > self.patience:
            raise RunError(
                f"{text}; it has changed neither parameters nor checkpoints. Try a lower lr:, a "
                f"longer warmup_steps:, precision: fp32, and listen to the clips in left_out.jsonl"
            )
        logger.warning(text)

    def check_finite(self, number: int) -> None:
        """Raises a RunError if a checkpoint of this step would not be finite.

        Every rank has to call this. Buffers may hold infinities (masks do), but no NaN.
        """
        bad = [name for name, p in self.modules.named_parameters() if not p.isfinite().all()]
        bad += [name for name, b in self.modules.named_buffers() if b.isnan().any()]
        for state in self.optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, torch.Tensor) and not value.isfinite().all():
                    bad.append(f"{name} of the optimiser")
        # All ranks gather, so that all of them end together.
        bad = [name for names in gather_over_ranks(bad) for name in names]
        if bad:
            raise RunError(
                f"{bad[0]} is not finite at step {number}: no checkpoint is written "
                f"over the last good one. Set max_grad_norm: to about 1, or a lower lr:"
            )

    def state_dict(self) -> dict:
        """The outcome of the last steps, for a checkpoint."""
        # An epoch may be logged after its last step was saved.
        return {
            "grad_norm": self.grad_norm,
            "nonfinite_in_a_row": self.nonfinite_in_a_row,
            "lr": self.schedule.rates[0],
        }

    def load_state_dict(self, state: dict) -> None:
        """Continues from a ``state_dict``; the checkpoint holds the optimiser apart."""
        check_count("nonfinite_in_a_row", state["nonfinite_in_a_row"])
        self.nonfinite_in_a_row = state["nonfinite_in_a_row"]
        self.grad_norm = state["grad_norm"]
        self.lr_then = state["lr"]


def step_on_device(optimizer: Any, skip: torch.Tensor) -> None:
    """A step that the device skips if ``skip`` is 1.0, as in torch's GradScaler.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
        It has ``_step_supports_amp_scaling``.
    skip : torch.Tensor
        1.0 or 0.0; the host does not read it.
    """
    optimizer.grad_scale, optimizer.found_inf = None, skip
    optimizer.step()
    del optimizer.grad_scale, optimizer.found_inf
