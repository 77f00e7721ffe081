"""The Brain that adds up what a run has seen: for its log, its report and its checkpoints."""

import os
import time

import torch
from speechbrain import Stage
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from ..errors import RunError
from ..monitoring.counts import CodeMonitor, Sums, code_statistics
from ..monitoring.health import unigram_loss
from ..own_files import open_own
from ..quantisers.base import check_quantiser_class
from ..ranks import rank, world_size
from .logged import LoggedBrain

logger = get_logger(__name__)


class WatchedBrain(LoggedBrain):
    """Logs loss, accuracy and codes over micro-batches and ranks, whatever interrupts the run.

    A subclass hands what is to be known of a micro-batch to ``observe``. Arguments are those of
    ``PretrainBrain``.
    """

    def __init__(
        self, modules=None, opt_class=None, hparams=None, run_opts=None, checkpointer=None
    ):
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        self.quantiser = self.modules["quantiser"]
        check_quantiser_class(self.quantiser)
        sizes = self.quantiser.num_codebooks, self.quantiser.codebook_size

        def new_sums():
            return Sums(CodeMonitor(*sizes).to(self.device))

        # What this rank saw since it last asked the others.
        self.window, self.valid_sums = new_sums(), new_sums()
        # What all ranks saw since the last log point, and in this epoch.
        self.interval_sums, self.epoch_sums = new_sums(), new_sums()
        self.interval_seconds = 0.0
        # The training codes of the whole run: the unigram that predictions have to beat.
        self.train_codes = CodeMonitor(*sizes).to(self.device)
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("train_codes", self.train_codes)
        self.stage_began = self.last_read = time.perf_counter()
        self.progress = tqdm(disable=True)
        self.run_log = self.open_log(
            codebook_size=self.quantiser.codebook_size, warmup_steps=self.hparams.warmup_steps
        )

    # ---- what a subclass calls -------------------------------------------------------------

    def observe(self, stage, codes_NG, **sums):
        """Adds what is to be known of a micro-batch; nothing leaves the device here.

        Arguments
        ---------
        stage : Stage
            Training or validation.
        codes_NG : torch.Tensor
            Codes of the valid masked frames, shape (frames, codebooks).
        **sums : torch.Tensor
            ``loss``, ``correct`` and ``targets`` (the first two are shown divided by the third),
            ``masked`` and ``valid`` (frames), ``samples``, and others that the subclass's
            ``more_statistics`` reads.
        """
        # What is not finite would spoil the sums of all the others; its step is left out anyway.
        # The silence of an empty batch is not speech that was seen.
        finite = torch.isfinite(sum(sums.values())) & (not self.batch_is_empty)
        sums = {name: torch.where(finite, value, 0) for name, value in sums.items()}
        codes_NG = torch.where(finite, codes_NG, -1)
        (self.window if stage == Stage.TRAIN else self.valid_sums).add(
            codes_NG, batches=finite, **sums
        )

    def references(self, counts_GV):
        """What the loss has to be better than; the unigram, unless a subclass knows another."""
        return {"unigram_loss": unigram_loss(counts_GV, self.train_codes.counts)}

    def more_statistics(self, sums):
        """Numbers that only one objective has, for metrics.jsonl."""
        return {}

    # ---- training --------------------------------------------------------------------------

    def fit(self, epoch_counter, train_set, valid_set=None, **kwargs):
        """Trains as ``speechbrain.Brain.fit`` does, then draws the report; see there."""
        try:
            super().fit(epoch_counter, train_set, valid_set, **kwargs)
        finally:
            self.progress.close()
        if not self.went_on:
            logger.info(
                f"The run in {self.run_log.folder} is finished, at step {self.optimizer_step}: "
                f"there is nothing left to train; to train its weights on, begin in a new "
                f"output_folder: with begin_from: this one"
            )
        if self.went_on or not self.run_log.has_report():  # a signal may have come before it
            title = f"{type(self).__name__} in {self.run_log.folder}"
            self.run_log.draw_report(self.train_codes.counts.cpu().numpy(), title)

    def evaluate_once(self, evaluate, *arguments):
        """Evaluates what was trained, on the main process, unless that is done already.

        Arguments
        ---------
        evaluate : callable
            Called with the Brain and the arguments.
        *arguments : object
            What else it needs.
        """
        run_on_main(self._evaluate_once, [evaluate, *arguments])

    def _evaluate_once(self, evaluate, *arguments):
        marker = os.path.join(self.run_log.folder, "evaluated_at_step.txt")
        step = str(self.optimizer_step)
        if not self.went_on and os.path.exists(marker):
            with open(marker, encoding="utf-8") as file:
                if file.read() == step:
                    logger.info(f"It is evaluated; to do that again, remove {marker}")
                    return
        evaluate(self, *arguments)
        with open_own(marker, "w") as file:
            file.write(step)

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Shows progress, and logs at each ``log_interval`` of optimiser steps."""
        if should_step and self.optimizer_step % self.hparams.log_interval == 0:
            self.log_interval()
        self.progress.update()

    def _fit_train(self, train_set, epoch, enable):
        # The bar of SpeechBrain 1.1.2 is local to this method and shows the loss only.
        self.show_progress = enable
        super()._fit_train(train_set, epoch, enable=False)

    # ---- what a checkpoint holds -----------------------------------------------------------

    def rank_state(self):
        """What this rank saw since the ranks last added up."""
        return self.window.state()

    def run_state(self):
        """The place of the run, and its sums."""
        now = time.perf_counter()
        return {
            **super().run_state(),
            "interval_sums": self.interval_sums.state(),
            "epoch_sums": self.epoch_sums.state(),
            "interval_seconds": self.interval_seconds + now - self.last_read,
            "epoch_seconds": now - self.stage_began,
        }

    def load_run_state(self, state, same_epoch):
        """Takes up what ``run_state`` gave."""
        super().load_run_state(state, same_epoch)
        self.interval_sums.load_state(state["interval_sums"])
        self.interval_seconds = state["interval_seconds"]
        if same_epoch:
            self.epoch_sums.load_state(state["epoch_sums"])
        self.epoch_seconds = state["epoch_seconds"] if same_epoch else 0.0
        # With another number of ranks, the first of them goes on from what all had seen.
        windows = state["rank_states"]
        if len(windows) == world_size():
            self.window.load_state(windows[rank()])
        elif rank() == 0:
            for window in windows:
                other = Sums(CodeMonitor(*self.window.monitor.counts.shape).to(self.device))
                other.load_state(window)
                self.window.merge(other)

    # ---- logging ---------------------------------------------------------------------------

    def on_stage_start(self, stage, epoch=None):
        """Starts the sums of an epoch or of a validation."""
        self.stage_began = self.last_read = time.perf_counter()
        if stage != Stage.TRAIN:
            self.valid_sums.clear()
            return
        if self.resumed:
            self.stage_began -= self.epoch_seconds
        else:
            self.epoch_sums.clear()
        self.progress = tqdm(
            total=-(-self.train_sampler.total // world_size()),
            initial=self.train_sampler.start // world_size(),
            desc=f"epoch {epoch}",
            dynamic_ncols=True,
            disable=not self.show_progress,
            colour=self.tqdm_barcolor["train"],
        )

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs the epoch's training or validation, and saves after the latter."""
        seconds = time.perf_counter() - self.stage_began
        if stage == Stage.TRAIN:
            self.progress.close()
            self.read_window()
            # A run that was stopped in the validation has logged its epoch already.
            if self.epoch_sums.values:
                self.log("train", "epoch", self.epoch_sums, seconds, epoch)
            self.epoch_sums.clear()
            return
        # Every rank has validated the same batches: there is nothing to add up.
        record = self.log(stage.name.lower(), "epoch", self.valid_sums, seconds, epoch)
        if stage == Stage.VALID and self.checkpointer is not None:
            self.save({"valid_loss": record["loss"], "epoch": epoch}, min_keys=["valid_loss"])

    def read_window(self):
        """Adds what all ranks saw since the last call to the interval, the epoch and the run."""
        self.read_steps()
        window = self.window.reduced()
        self.window.clear()
        self.interval_sums.merge(window)
        self.epoch_sums.merge(window)
        self.train_codes.counts += window.monitor.counts
        now = time.perf_counter()
        self.interval_seconds += now - self.last_read
        self.last_read = now

    def log_interval(self):
        """Logs the steps since the last log point."""
        self.read_window()
        if self.interval_sums.values:
            epoch = self.hparams.epoch_counter.current
            sums, seconds = self.interval_sums, self.interval_seconds
            record = self.log("train", "interval", sums, seconds, epoch)
            shown = {"loss": record["loss"], "perplexity": record["code_perplexity_sum"]}
            self.progress.set_postfix(shown, refresh=False)
        self.interval_sums.clear()
        self.interval_seconds = 0.0

    def end_without_targets(self, stage, values):
        """Raises a RunError: a run without targets learns nothing."""
        if values["batches"]:
            reason = (
                f"{values['masked']:g} of {values['valid']:g} frames were masked, none of them "
                f"makes a target: set mask_ratio: higher, mask_length: to a multiple of stack: "
                f"(BEST-RQ), or min_seconds: higher, and listen to the clips"
            )
        else:
            reason = (
                "every clip or step was left out: see left_out.jsonl, and mend the audio or set "
                "lr: lower"
            )
        raise RunError(
            f"no target was seen in {'training' if stage == 'train' else 'validation'} up to step "
            f"{self.optimizer_step}; {reason}"
        )

    def log(self, stage, span, sums, seconds, epoch):
        """Writes one log point, on every rank, and warns of what looks wrong.

        Returns
        -------
        record : dict
            The line of metrics.jsonl.
        """
        counts_GV = sums.monitor.counts
        values = sums.read()
        # A few short clips may have no span by chance, an epoch has one.
        if not values["targets"] and (span == "epoch" or values["masked"]):
            self.end_without_targets(stage, values)
        targets = values["targets"] or float("nan")
        record = {
            "step": self.optimizer_step,
            "epoch": epoch,
            "stage": stage,
            "span": span,
            "loss": values["loss"] / targets,
            "accuracy": values["correct"] / targets,
            **self.references(counts_GV),
            **code_statistics(counts_GV),
            **self.more_statistics(values),
            "masked_ratio": values["masked"] / max(values["valid"], 1),
            "speech_per_second": values["samples"] / self.hparams.sample_rate / seconds,
        }
        if stage == "train":
            lr = self.optimizer.param_groups[0]["lr"]
            record.update(lr=lr, grad_norm=self.grad_norm)
        self.run_log.write(record)
        return record
