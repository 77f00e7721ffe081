"""Optimiser steps that never put anything into the parameters that is not finite."""

import math

import speechbrain as sb
import torch
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


class FiniteStepsBrain(sb.Brain):
    """A Brain whose ``optimizers_step`` clips everything and leaves out what is not finite.

    Reads ``hparams.lr_schedule``, called with the optimiser and the number of the step, from 1.
    """

    grad_norm = float("nan")  # of the last step, before clipping

    def check_loss_isfinite(self, loss):
        """Left to ``optimizers_step``, where all ranks see the same gradients.

        SpeechBrain 1.1.2 raises on the rank that sees the loss, and the others wait for ever.
        """

    def optimizers_step(self):
        """Clips all parameters, then steps, unless a gradient is not finite.

        SpeechBrain 1.1.2 clips the first parameter group only, clips to zero with
        ``max_grad_norm: 0``, climbs the gradient with -1, and steps on NaN gradients. Here 0 and
        below mean no clipping, and a step with a gradient that is not finite is left out.
        """
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        limit = self.max_grad_norm if self.max_grad_norm > 0 else math.inf
        self.grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        if math.isfinite(self.grad_norm):
            self.hparams.lr_schedule(self.optimizer, self.optimizer_step + 1)
            self.scaler.step(self.optimizer)
            self.optimizer_step += 1
        else:
            self.count_nonfinite_step()
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def count_nonfinite_step(self):
        """Warns of a step that was left out, and ends the run after nonfinite_patience of them."""
        if self.scaler.is_enabled() and self.scaler.get_scale() > 1.0:
            return  # fp16 finds its scale by trying: that is no fault of the run
        self.nonfinite_count += 1
        text = (
            f"step {self.optimizer_step + 1} left out: a gradient is not finite "
            f"({self.nonfinite_count} in this epoch, nonfinite_patience {self.nonfinite_patience})"
        )
        if self.nonfinite_count > self.nonfinite_patience:
            raise ValueError(
                f"{text}; parameters and checkpoints are as before it. Try a lower lr:, a longer "
                f"warmup_steps:, precision: fp32, and look for silent or broken audio"
            )
        logger.warning(text)
