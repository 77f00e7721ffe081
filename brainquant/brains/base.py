"""The Brain that every pretraining shares: it anneals, trains safely, watches and reports."""

import os
import time

import torch
from speechbrain import Stage
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..monitors import CodeMonitor, Sums, code_statistics, unigram_loss
from ..quantisers.base import check_quantiser_class
from ..training.finite_steps import FiniteStepsBrain
from ..training.hparams import show_options
from ..training.randomness import derived_generator
from ..training.run_log import RunLog


class PretrainBrain(FiniteStepsBrain):
    """Trains an encoder on the codes of a quantiser.

    A subclass adds ``compute_forward`` and ``compute_objectives``; the latter hands what is to be
    known of a micro-batch to ``observe``. The quantiser is ``modules["quantiser"]``.

    Arguments
    ---------
    modules : dict
        Modules, with a ``quantiser`` that keeps the contract of ``brainquant.quantisers.base``.
    opt_class : callable
        Makes the optimiser from parameters.
    hparams : dict
        Hyperparameters; the keys that are read are in ``hparams_read``.
    run_opts : RunOptions or dict
        Options of the command line; they win over the same keys in hparams.
    checkpointer : speechbrain.utils.checkpoints.Checkpointer or None
        Saves modules, optimiser and code counts at the end of each epoch.
    """

    # Keys of the YAML that this Brain, the loaders and the reports read.
    hparams_read = frozenset({
        "train_csv", "valid_csv", "data_folder", "batch_seconds", "num_buckets", "min_seconds",
        "max_seconds", "num_workers", "seed", "sample_rate", "lr_schedule", "warmup_steps",
        "log_interval", "train_loggers", "keep_checkpoints", "output_folder",
    })  # fmt: skip

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
        self.progress = tqdm(disable=True)
        # A try with --debug must not touch the metrics of the real run beside it.
        debug = "debug" if self.debug and not self.debug_persistently else ""
        folder = os.path.join(self.hparams.output_folder, debug)
        self.run_log = RunLog(
            folder,
            self.hparams.train_loggers,
            codebook_size=self.quantiser.codebook_size,
            warmup_steps=self.hparams.warmup_steps,
        )

    # ---- what a subclass calls -------------------------------------------------------------

    def waveforms(self, batch):
        """Waveforms (batch, samples) and the number of samples of each, on the device."""
        wavs, relative = batch.to(self.device).sig
        return wavs, (relative * wavs.shape[1]).round().long()

    def raw(self, name):
        """A module without the wrapper of DistributedDataParallel."""
        module = self.modules[name]
        return module.module if isinstance(module, DistributedDataParallel) else module

    def generator(self, stage):
        """Draws the masks, noise and negatives of this micro-batch.

        Derived from the seed and the number of the batch in the epoch, counted over ranks: each
        rank draws other masks, a resumed run the same, and so do several ranks and one rank that
        accumulates the same batches. Validation draws the same in every epoch.
        """
        place = (0, self.step)
        if stage == Stage.TRAIN:
            ranks = torch.distributed.get_world_size() if self.distributed_launch else 1
            rank = self.rank if self.distributed_launch else 0
            place = (self.hparams.epoch_counter.current, (self.step - 1) * ranks + rank)
        return derived_generator(self.device, self.hparams.seed, stage.name, *place)

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
        finite = torch.isfinite(sums["loss"])
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
        self.train_sampler = train_set.batch_sampler  # SpeechBrain gives it the epoch
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("dataloader-TRAIN", train_set)
        if len(train_set) < self.grad_accumulation_factor:
            raise ValueError(
                f"grad_accumulation_factor is {self.grad_accumulation_factor}, but an epoch has "
                f"only {len(train_set)} batches on each rank: no step would ever be taken; lower "
                f"grad_accumulation_factor: or batch_seconds:"
            )
        super().fit(epoch_counter, train_set, valid_set, **kwargs)
        title = f"{type(self).__name__} in {self.hparams.output_folder}"
        self.run_log.draw_report(self.train_codes.counts.cpu().numpy(), title)

    def on_fit_start(self):
        """Loads the last checkpoint, then shows what is in force."""
        super().on_fit_start()
        if self.distributed_launch:
            # Modules were built from one seed; dropout is to differ from rank to rank.
            torch.manual_seed(self.hparams.seed + self.rank)
        show_options(self)
        self.run_log.forget_after(self.optimizer_step)

    def on_fit_batch_start(self, batch, should_step):
        """Anneals every quantiser, from the count of steps that the checkpoint holds."""
        for module in self.modules.modules():
            if hasattr(module, "update_temp"):
                module.update_temp(self.optimizer_step)

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Shows progress, and logs at each ``log_interval`` of optimiser steps."""
        if should_step and self.optimizer_step % self.hparams.log_interval == 0:
            self.log_interval()
        self.progress.update()

    def _fit_train(self, train_set, epoch, enable):
        """SpeechBrain's epoch, with its progress bar showing loss and perplexity.

        The bar of SpeechBrain 1.1.2 is local to this method and shows the loss only. A finished
        run that is started again has nothing to train, and nothing to validate.
        """
        self.finished = self._optimizer_step_limit_exceeded
        if self.finished:
            return
        with tqdm(
            total=len(train_set),
            initial=self.step,
            desc=f"epoch {epoch}",
            dynamic_ncols=True,
            disable=not enable,
            colour=self.tqdm_barcolor["train"],
        ) as self.progress:
            super()._fit_train(train_set, epoch, enable=False)

    def _fit_valid(self, valid_set, epoch, enable):
        """SpeechBrain's validation, unless the run was finished before it began."""
        if not self.finished:
            super()._fit_valid(valid_set, epoch, enable)

    # ---- logging ---------------------------------------------------------------------------

    def on_stage_start(self, stage, epoch=None):
        """Starts the sums of an epoch or of a validation."""
        (self.epoch_sums if stage == Stage.TRAIN else self.valid_sums).clear()
        self.stage_began = self.last_read = time.perf_counter()

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs the epoch's training or validation, and saves after the latter."""
        seconds = time.perf_counter() - self.stage_began
        if stage == Stage.TRAIN:
            self.read_window()
            self.log("train", "epoch", self.epoch_sums, seconds, epoch)
            return
        # Every rank has validated the same batches: there is nothing to add up.
        record = self.log(stage.name.lower(), "epoch", self.valid_sums, seconds, epoch)
        if stage == Stage.VALID and self.checkpointer is not None:
            self.checkpointer.save_and_keep_only(
                meta={"valid_loss": record["loss"], "epoch": epoch, "step": self.optimizer_step},
                num_to_keep=self.hparams.keep_checkpoints,
                min_keys=["valid_loss"],
            )

    def read_window(self):
        """Adds what all ranks saw since the last call to the interval, the epoch and the run."""
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

    def log(self, stage, span, sums, seconds, epoch):
        """Writes one log point, on every rank, and warns of what looks wrong.

        Returns
        -------
        record : dict
            The line of metrics.jsonl.
        """
        counts_GV = sums.monitor.counts
        values = sums.read()
        if not values:
            raise ValueError(f"no batch was seen in stage {stage!r}: the set is empty")
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
