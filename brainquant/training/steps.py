"""Optimiser steps that see every batch once and take in nothing that is not finite."""

import math

import speechbrain as sb
import torch
from speechbrain import Stage
from speechbrain.utils.logger import get_logger
from speechbrain.utils.optimizers import rm_vector_weight_decay

from ..data.batches import is_empty
from ..errors import RunError
from ..ranks import gather_over_ranks, rank, world_size
from .optimisers import make_optimizer
from .schedules import Schedule

logger = get_logger(__name__)


class FiniteStepsBrain(sb.Brain):
    """A Brain whose steps are means over their batches, clipped, and left out if not finite.

    Nothing of a step is read while the device works on it: what became of the steps is read by
    ``read_steps``, before a log point, a validation or a checkpoint. (SpeechBrain 1.1.2 waits for
    each loss.) Gradient scaling, for fp16, and optimisers that cannot skip a step on the device
    (``fused: True`` can) wait for each step.

    Reads ``hparams.lr_schedule``, see ``brainquant.training.schedules``.
    The sampler of ``fit`` is a ``brainquant.data.batches.RankBatchSampler``.
    """

    grad_norm = float("nan")  # of the last step that was read, before clipping
    nonfinite_in_a_row = 0
    schedule = None  # of the learning rates of ``optimizer``, from the first step on
    turns = math.inf  # batches of this rank in what is left of the epoch
    should_step = False

    @property
    def batch_number(self):
        """Number of this rank's batch in the epoch, from 0, counted over ranks."""
        return self.train_sampler.start + (self.step - 1) * world_size() + rank()

    def tick(self, phase):
        """Called before each phase of a step; all ranks go through the same in the same order."""

    def start_steps(self):
        """Forgets what belongs to no step yet; called when an epoch starts."""
        self.step_batches = []  # the IDs of each micro-batch of this step
        self.losses_finite = torch.ones((), dtype=torch.bool, device=self.device)
        self.unread_steps = []  # number, step_batches, and (norm, losses_finite) on the device
        self.buffers = BufferCopies(self.modules)
        # What gathers the batches of a step: see brainquant.quantisers.base.
        self.gatherers = [m for m in self.modules.modules() if hasattr(m, "end_step")]

    def share_of_step(self, batch):
        """What the loss of this micro-batch is multiplied with.

        A step's gradient is the mean over its batches on all ranks. The last step of an epoch
        may have fewer than the others, and a rank none at all: it goes through the step with a
        placeholder that counts for nothing. (SpeechBrain 1.1.2 drops the batches after the last
        full accumulation.)
        """
        if is_empty(batch):
            return 0.0
        in_step = world_size() * self.grad_accumulation_factor
        first = (self.step - 1) // self.grad_accumulation_factor * in_step
        left = self.train_sampler.total - self.train_sampler.start - first
        return world_size() / min(in_step, left)

    def fit_batch(self, batch):
        """One micro-batch, and at the end of its group a step."""
        group_ends = self.step % self.grad_accumulation_factor == 0
        self.should_step = group_ends or self.step == self.turns
        self.step_batches.append([] if is_empty(batch) else list(getattr(batch, "id", [])))
        self.on_fit_batch_start(batch, self.should_step)
        for module in self.gatherers:
            module.begin_step()
        self.tick("the forward pass")
        with self.no_sync(not self.should_step):
            with self.training_ctx:
                outputs = self.compute_forward(batch, Stage.TRAIN)
                loss = self.compute_objectives(outputs, batch, Stage.TRAIN)
            finite = torch.isfinite(loss)
            self.losses_finite = finite & self.losses_finite
            self.tick("the backward pass")
            # A loss that is not finite makes its gradients so: all ranks then see it in theirs.
            poison = torch.where(finite, 1.0, math.nan)
            self.scaler.scale(loss * self.share_of_step(batch) * poison).backward()
        if self.should_step:
            self.tick("the optimiser's step")
            self.optimizers_step()
        self.on_fit_batch_end(batch, outputs, loss, self.should_step)
        return loss.detach()

    def optimizers_step(self):
        """Clips all parameters, then steps, unless a gradient is not finite on some rank.

        SpeechBrain 1.1.2 clips the first parameter group only, clips to zero with
        ``max_grad_norm: 0``, climbs the gradient with -1, steps on NaN gradients, and stops the
        one rank that sees a loss that is not finite while the others wait. Here 0 and below mean
        no clipping, and a step that is not finite leaves nothing behind but its number: neither
        parameters nor optimiser or buffers (moving averages of a quantiser or a normalisation)
        change. A quantiser whose codebooks follow the frames moves here, once in a step.
        """
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        limit = self.max_grad_norm if self.max_grad_norm > 0 else math.inf
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        good = norm.isfinite()
        self.set_learning_rates(self.optimizer_step + 1)
        # What GradScaler does with such optimisers.
        on_device = getattr(self.optimizer, "_step_supports_amp_scaling", False)
        on_device = on_device and not self.scaler.is_enabled()
        if on_device:
            self.optimizer.grad_scale, self.optimizer.found_inf = None, (~good).float()
            self.optimizer.step()
            del self.optimizer.grad_scale, self.optimizer.found_inf
        elif good:
            self.scaler.step(self.optimizer)
        for module in self.gatherers:
            module.end_step()
        self.buffers.keep_if(good)
        self.optimizer_step += 1
        outcome = torch.stack([norm.float(), self.losses_finite.to(norm.device).float()])
        self.unread_steps.append((self.optimizer_step, self.step_batches, outcome))
        if not on_device:
            self.read_steps()
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step_batches, self.losses_finite = [], torch.ones_like(self.losses_finite)

    def parameter_groups(self):
        """Parameters, or groups of them, for the optimiser."""
        decayed = self.remove_vector_weight_decay
        return rm_vector_weight_decay(self.modules) if decayed else self.modules.parameters()

    def init_optimizers(self):
        """Makes the optimiser of the YAML; what cannot work is an error before the first step."""
        self.optimizer = make_optimizer(
            self.opt_class,
            self.parameter_groups(),
            self.hparams.lr_schedule,
            self.optimizer_step_limit,
        )
        self.optimizers_dict = {"opt_class": self.optimizer}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def set_learning_rates(self, step):
        """Sets those of a step, from 1."""
        if self.schedule is None or self.schedule.optimizer is not self.optimizer:
            self.schedule = Schedule(self.hparams.lr_schedule, self.optimizer)
        self.schedule.set_rates(step)

    def read_steps(self):
        """Reads what became of the steps; all ranks call it after the same ones.

        Raises
        ------
        RunError
            Where more than ``nonfinite_patience`` of them in a row were left out.
        """
        steps, self.unread_steps = self.unread_steps, []
        if not steps:
            return
        outcomes = torch.stack([outcome for *_, outcome in steps]).tolist()
        for (number, batches, _), (self.grad_norm, losses_finite) in zip(steps, outcomes):
            if math.isfinite(self.grad_norm):
                self.nonfinite_in_a_row = 0
            else:
                self.tell_of_left_out(number, batches, bool(losses_finite))

    def tell_of_left_out(self, number, batches, losses_finite):
        """Writes down a step that was left out; ends the run after nonfinite_patience in a row."""
        # Gradients are the same on all ranks: each of them comes here.
        ranks = gather_over_ranks((batches, losses_finite))
        losses_finite = all(finite for _, finite in ranks)
        if losses_finite and self.scaler.is_enabled() and self.scaler.get_scale() > 1.0:
            return  # fp16 finds its scale by trying: that is no fault of the run
        self.nonfinite_in_a_row += 1
        what = "a gradient" if losses_finite else "the loss"
        self.on_step_left_out(number, what, [ids for batches, _ in ranks for ids in batches])
        text = (
            f"step {number} left out: {what} is not finite "
            f"({self.nonfinite_in_a_row} in a row, nonfinite_patience {self.nonfinite_patience})"
        )
        if self.nonfinite_in_a_row > self.nonfinite_patience:
            raise RunError(
                f"{text}; it has changed neither parameters nor checkpoints. Try a lower lr:, a "
                f"longer warmup_steps:, precision: fp32, and listen to the clips in left_out.jsonl"
            )
        logger.warning(text)

    def on_step_left_out(self, number, what, ids):
        """Called on every rank with the step, what was not finite, and each micro-batch's IDs."""

    def update_average(self, loss, avg_loss):
        """The mean loss of an epoch's batches, in training after the last of them only.

        SpeechBrain 1.1.2 waits for each loss here, to show it in the progress bar.
        """
        if not self.modules.training:
            return super().update_average(loss, avg_loss)
        if self.step == 1:
            self.finite_losses = torch.zeros(2, dtype=torch.double, device=loss.device)
        finite = torch.isfinite(loss)
        self.finite_losses += torch.stack(
            [torch.where(finite, loss, 0.0).double(), finite.double()]
        )
        if self.step < self.turns and not self._optimizer_step_limit_exceeded:
            return avg_loss
        total, batches = self.finite_losses.tolist()
        return total / max(batches, 1)

    def check_finite(self):
        """Raises a RunError where something that a checkpoint would keep is not finite.

        Buffers may hold infinities on purpose (masks), but no NaN.
        """
        bad = [name for name, p in self.modules.named_parameters() if not p.isfinite().all()]
        bad += [name for name, b in self.modules.named_buffers() if b.isnan().any()]
        for state in self.optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, torch.Tensor) and not value.isfinite().all():
                    bad.append(f"{name} of the optimiser")
        # Asked on every rank, so that all of them end together.
        bad = [name for names in gather_over_ranks(bad) for name in names]
        if bad:
            raise RunError(
                f"{bad[0]} is not finite at step {self.optimizer_step}: no checkpoint is written "
                f"over the last good one. Set max_grad_norm: to about 1, or a lower lr:"
            )


class BufferCopies:
    """Buffers as the last good step left them.

    Arguments
    ---------
    modules : torch.nn.Module
        Whose buffers are kept.

    Example
    -------
    >>> norm = torch.nn.BatchNorm1d(1)
    >>> copies = BufferCopies(norm)
    >>> _ = norm(torch.tensor([[1.0], [float("nan")]]))
    >>> copies.keep_if(torch.tensor(False))
    >>> norm.running_mean, norm.num_batches_tracked
    (tensor([0.]), tensor(0))
    """

    def __init__(self, modules):
        # All of them in each step: batch norms change theirs without counting up `_version`.
        self.buffers = list(modules.buffers())
        self.copies = [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()  # a library's quantiser may have buffers with gradients
    def keep_if(self, good):
        """Remembers the buffers, or gives them the values of the last good step.

        Arguments
        ---------
        good : torch.Tensor
            Whether this step was good; nothing waits for it.
        """
        for buffer, copy in zip(self.buffers, self.copies):
            copy.copy_(torch.where(good, buffer, copy))
            buffer.copy_(copy)
