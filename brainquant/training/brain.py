"""The Brain of every run: SpeechBrain's loop, and parts that are saved in its checkpoints."""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import speechbrain as sb
import torch
from speechbrain import Stage
from speechbrain.core import INTRA_EPOCH_CKPT_FLAG
from speechbrain.utils.logger import get_logger
from speechbrain.utils.optimizers import rm_vector_weight_decay
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from ..data.batches import check_sampler, is_empty
from ..errors import RunError
from ..models.speech_encoder import SpeechEncoder
from ..monitoring.code_tally import CodeTally
from ..monitoring.error_tally import ErrorTally
from ..monitoring.progress import Progress
from ..monitoring.run_log import RunLog
from ..ranks import on_main_process, world_size
from .changed_keys import describe, go_on_with_learning_rates, keys_in_force
from .checkpoint_contents import OtherModel, other_model
from .checkpoints import Checkpointer
from .clock import Clock
from .device_options import (
    check_device,
    compile_errors,
    drops_layers,
    given_options,
    module_errors,
)
from .hparams import run_folder, show_options
from .keys import LOADERS, RECIPE, RUN, check_values
from .left_out import LeftOut
from .lost_workers import explain_lost_workers
from .meeting import Meeting
from .needed_files import keep_needed_files
from .optimisers import make_optimizer
from .place import Place
from .randomness import seed_global_generators
from .run_parts import RunParts
from .run_setup import RunSetup, describe_batches
from .steps import GradientStep
from .time_left import CHECKPOINT, TimeLeft, limits_of
from .watchdog import Watchdog
from .watched_loader import WatchedLoader

logger = get_logger(__name__)


class RunBrain(sb.Brain):
    """A Brain whose runs may be interrupted: on a CPU the result is the same to the last bit.

    A run, with the hook of each line and the part that does the work::

        on_fit_start                     setup: compares the ranks; parts: load the checkpoint
        on_optimizer_step                a pretraining anneals its quantisers
        for epoch in epoch_counter:
            on_stage_start               tally: starts
            for batch in train_set:      left_out: notes the clips that cannot be read
                on_fit_batch_start       seeds the global generators; before the first step that
                                         changes the encoder, a pretraining that began with
                                         weights validates
                compute_forward          of the subclass
                compute_objectives       of the subclass; tally: observes
                                         steps: the backward pass
                if the step is complete:
                    before_step          a pretraining pulls its encoder to its first weights
                                         steps: changes the parameters
                    after_step           a teacher follows its encoder
                    on_fit_batch_end     tally: a log point every log_interval steps
                    on_optimizer_step    a pretraining anneals its quantisers
                    meeting              stop? save? new clips left out?
                    save                 every ckpt_interval_minutes
            on_stage_end                 tally: the log point of the epoch
            for batch in valid_set:      the same without steps, then save
                                         run_log: renews the report

    A checkpoint holds everything in ``modules:``, the optimiser, the epoch counter, and
    ``{name: part.state_dict()}``. A subclass makes its tally in ``make_tally``.

    Arguments
    ---------
    modules : dict of str to torch.nn.Module
        The modules by name.
    opt_class : callable
        Makes the optimiser from parameters.
    hparams : dict
        Hyperparameters; ``hparams_read`` has the keys that are read.
    run_opts : RunOptions or dict
        Options of the command line; they win over the same keys in hparams.
    checkpointer : brainquant.training.checkpoints.Checkpointer or None
        Saves the run.
    """

    # Keys of the YAML that the Brain, the loaders and the reports read.
    hparams_read = {
        **LOADERS, **RUN,
        **{name: RECIPE[name] for name in ("seed", "output_folder", "epoch_counter")},
    }  # fmt: skip
    # Options of SpeechBrain, which its constructor sets.
    checkpointer: Any
    ckpt_interval_minutes: float
    ckpt_interval_steps: int
    grad_accumulation_factor: int
    max_grad_norm: float
    modules: Any  # a torch.nn.ModuleDict; the YAML decides on the classes
    nonfinite_patience: int
    debug: bool
    debug_batches: int
    noprogressbar: bool
    opt_class: Any
    optimizer_step_limit: int | None
    remove_vector_weight_decay: bool

    setup: RunSetup  # from the start of ``fit``
    steps: GradientStep  # from the start of ``fit``
    unchanging: dict[str, str] = {}  # what else may not change when the run goes on
    batch_is_empty = False  # whether the batch is a placeholder
    went_on = False  # whether something was left to train or to validate

    def __init__(
        self,
        modules: dict[str, torch.nn.Module],
        opt_class: Callable,
        hparams: dict[str, Any],
        run_opts: Any = None,
        checkpointer: Checkpointer | None = None,
    ) -> None:
        self.place = Place()
        hparams = check_values(hparams, self.hparams_read)
        check_device({**hparams, **given_options(run_opts)})
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        if self.hparams.activation_checkpointing:
            for module in self.modules.values():
                if isinstance(module, SpeechEncoder):
                    module.checkpoint_activations()
        self.place.accumulation = self.grad_accumulation_factor
        self.uncompiled: dict[str, torch.nn.Module] = {}  # compiled modules, as they were
        self.watchdog = Watchdog(self.hparams.hang_minutes)
        self.progress = Progress()
        self.clock = Clock()
        self.time_left = TimeLeft()
        self.tally = self.make_tally()
        folder = run_folder(self.hparams.output_folder, self)
        trial = folder != self.hparams.output_folder  # its numbers are not the real run's
        self.run_log = RunLog(
            folder,
            [] if trial else self.hparams.train_loggers,
            codebook_size=self.tally.codebook_size,
            warmup_steps=self.hparams.warmup_steps,
            # Without the folders of this machine: a report is sent to others.
            title=f"{type(self).__name__} in {'/'.join(Path(folder).parts[-2:])}",
        )
        self.left_out = LeftOut(self.run_log, self.hparams.max_bad_audio)
        self.parts = RunParts(
            place=self.place, clock=self.clock, left_out=self.left_out, run_log=self.run_log,
            tally=self.tally,
        )  # fmt: skip
        if checkpointer is not None:
            self.parts.add_to(checkpointer, self.modules, self.hparams.epoch_counter)

    def make_tally(self) -> CodeTally | ErrorTally:
        """Makes the part that adds up the numbers of the log."""
        raise NotImplementedError

    @property
    def optimizer_step(self) -> int:
        """Steps of the whole run."""
        return self.place.optimizer_step

    @optimizer_step.setter
    def optimizer_step(self, number: int) -> None:
        self.place.optimizer_step = number

    @property
    def batch_number(self) -> int:
        """Number of this rank's batch in the epoch, from 0, counted over ranks."""
        return self.place.batch_number(self.step)

    @property
    def learning_rate(self) -> float:
        """The learning rate in the log."""
        return self.optimizer.param_groups[0]["lr"]

    def raw(self, name: str) -> Any:
        """A module without the wrappers of DistributedDataParallel and torch.compile."""
        module = self.modules[name]
        module = module.module if isinstance(module, DistributedDataParallel) else module
        return self.uncompiled.get(name, module)

    def waveforms(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Waveforms (batch, samples) on the device, and the samples of each on the host.

        So code that depends on the lengths need not wait for the device.
        """
        self.batch_is_empty = is_empty(batch)
        wavs_BL, relative_B = batch.sig
        lengths_B = (relative_B.cpu() * wavs_BL.shape[1]).round().long()
        return batch.to(self.device, non_blocking=True).sig.data, lengths_B

    # ---- the run as a whole ----------------------------------------------------------------

    @override
    def fit(self, epoch_counter, train_set, valid_set=None, **kwargs):
        """Trains as ``speechbrain.Brain.fit`` does, on loaders of ``make_loaders``; see there.

        At the end it draws the report.

        Raises
        ------
        RunError
            If the run cannot go on; the message says why.
        Stopped
            After a signal and a checkpoint.
        """
        self.prepare_fit(train_set, valid_set)
        try:
            with (
                contextlib.ExitStack() as self.until_fit_ends,
                self.watchdog,
                explain_lost_workers(train_set, valid_set),
            ):
                super().fit(epoch_counter, train_set, valid_set, **kwargs)
                stopping, _ = self.meeting.meet(self.optimizer_step)
        finally:
            self.progress.close()
        if self.checkpointer is not None and self.checkpointer.save_failed:
            raise RunError(self.checkpointer.save_failed)
        if stopping:
            self.meeting.end(self.optimizer_step, "the run was at its end")
        if not self.went_on:
            logger.info(
                f"The run in {self.run_log.folder} is finished, at step {self.optimizer_step}: "
                f"there is nothing left to train; to train its weights on, begin in a new "
                f"output_folder: with begin_from: this one"
            )
        if self.went_on or not self.run_log.has_report():  # a signal may have come before it
            self.run_log.draw_report(self.tally.code_counts())

    def prepare_fit(self, train_set: Any, valid_set: Any = None) -> None:
        """Makes the parts that depend on the loaders; ``fit`` calls this first."""
        check_sampler(train_set)
        self.train_sampler = train_set.batch_sampler
        self.valid_batches = len(valid_set) if valid_set else 0
        self.left_out.num_clips = sum(len(s.dataset) for s in (train_set, valid_set) if s)
        in_step = world_size() * self.grad_accumulation_factor
        batches = describe_batches(vars(self.hparams), train_set.dataset, in_step)
        self.setup = RunSetup(
            {**batches, **self.unchanging},
            keys_in_force(self),
            allowed=self.hparams.resume_with_changes,
        )
        self.meeting = Meeting(self.left_out, self.watchdog)
        self.went_on = False

    @override
    def on_fit_start(self):
        """Compares the ranks, loads the last checkpoint, and shows what is in force."""
        self.watchdog.tick("comparing the ranks")
        self.setup.check_ranks_agree(self.modules)
        self.watchdog.tick("loading a checkpoint")
        try:
            super().on_fit_start()
        except OtherModel as error:
            if not self.setup.changed:
                raise
            folder = self.checkpointer.checkpoints_dir
            raise other_model(folder, describe(self.setup.changed)) from error
        went_on = self.setup.loaded is not None
        if went_on:
            self.setup.warn_of_changes()
            go_on_with_learning_rates(self)
        for name in self.modules:
            if getattr(self.raw(name), "lacks_weights", False):
                raise RunError(
                    f"{name} has no weights yet: the run or model that they come from is gone, and "
                    f"there is no checkpoint in {self.run_log.folder}; bring it back"
                )
        on_main_process(lambda: keep_needed_files(self.run_log.folder, went_on=went_on))
        self.run_log.start(self.optimizer_step)
        self.clock.start()
        self.on_optimizer_step()
        show_options(self)

    @override
    def _compile(self):
        """Compiles as SpeechBrain does; errors name the modules."""
        before = dict(self.modules.items())
        with compile_errors(self):
            super()._compile()
        self.uncompiled = {n: m for n, m in before.items() if self.modules[n] is not m}

    @override
    def _wrap_distributed(self):
        """Wraps as SpeechBrain does; ranks do not wait for parameters of dropped layers."""
        if world_size() > 1 and drops_layers(self.modules) and not self.find_unused_parameters:
            self.find_unused_parameters = True
            logger.info("find_unused_parameters is set, since the encoder drops layers")
        super()._wrap_distributed()

    def parameter_groups(self) -> Any:
        """Parameters, or groups of them, for the optimiser."""
        decayed = self.remove_vector_weight_decay
        return rm_vector_weight_decay(self.modules) if decayed else self.modules.parameters()

    @override
    def init_optimizers(self):
        """Makes the optimiser of the YAML, and ``steps``; tries both before the first step."""
        self.optimizer = make_optimizer(
            self.opt_class,
            self.parameter_groups(),
            self.hparams.lr_schedule,
            self.optimizer_step_limit,
        )
        self.optimizers_dict = {"opt_class": self.optimizer}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)
        self.steps = GradientStep(
            self.modules,
            self.optimizer,
            self.hparams.lr_schedule,
            self.scaler,
            max_grad_norm=self.max_grad_norm,
            patience=self.nonfinite_patience,
            write_step=lambda number, what, ids: self.left_out.write_step(
                number, self.hparams.epoch_counter.current, what, ids
            ),
            before_step=self.before_step,
            after_step=self.after_step,
            tick=self.watchdog.tick,
        )
        self.parts.add_first(setup=self.setup, steps=self.steps)

    # ---- an epoch and a validation ---------------------------------------------------------

    @override
    def _fit_train(self, train_set, epoch, enable):
        """Trains as SpeechBrain does, from the batch at which the checkpoint was saved.

        A finished run that is started again has nothing to train, and nothing to validate.
        """
        self.finished = self._optimizer_step_limit_exceeded and not self.place.resumed
        if self.finished:
            return
        if not self.went_on:  # from here on there is something to save
            self.until_fit_ends.enter_context(self.meeting.signals)
        self.went_on = True
        self.place.start_epoch(self.train_sampler, epoch)
        self.steps.start_epoch()
        self.progress.start(
            epoch,
            -(-self.train_sampler.total // world_size()),
            self.train_sampler.start // world_size(),
            show=enable,
            colour=self.tqdm_barcolor["train"],
        )
        if not self.debug:
            self.time_left.start_epoch(limits_of(self, epoch))
        with module_errors(self.modules):
            batches = WatchedLoader(train_set, "training", self.watchdog, self.left_out)
            super()._fit_train(batches, epoch, enable=False)
        self.place.resumed = False

    @override
    def _fit_valid(self, valid_set, epoch, enable):
        """Validates as SpeechBrain does, saves the end of the epoch, and renews the report."""
        if self.finished:
            return
        if valid_set is not None:
            with module_errors(self.modules):
                super()._fit_valid(self.watched(valid_set), epoch, enable)
        elif self.checkpointer is not None:
            self.save({"epoch": epoch})
        self.run_log.renew_report(self.tally.code_counts())

    def watched(self, valid_set: Any) -> WatchedLoader:
        """The batches of a validation, after each of which the run may be stopped."""
        return WatchedLoader(
            valid_set, "validation", self.watchdog, self.left_out, self.stop_if_told
        )

    def validate_between_steps(self, valid_set: Any) -> dict | None:
        """The numbers of a validation in the middle of an epoch; it logs and saves nothing.

        The draws are those of every other validation. Every rank has to call this.
        """
        step = self.step
        self.modules.eval()
        self.on_stage_start(Stage.VALID)
        with torch.no_grad():
            for number, batch in enumerate(self.watched(valid_set), start=1):
                self.step = number
                self.evaluate_batch(batch, Stage.VALID)
                if self.debug and self.step == self.debug_batches:
                    break
        record = self.tally.end(Stage.VALID, self.optimizer_step)
        self.modules.train()
        self.on_stage_start(Stage.TRAIN)
        self.step = step
        return record

    @override
    def on_stage_start(self, stage, epoch=None):
        """Starts the sums of an epoch, a validation or a test."""
        self.tally.start(stage)

    @override
    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs an epoch, a validation or a test, and saves after a validation."""
        if stage == Stage.TRAIN:
            self.progress.close()
            self.steps.read()
        record = self.tally.end(stage, self.optimizer_step)
        if record is not None:
            record = {**record, **self.measure_more(stage)}
            self.log(stage, record)
        if record is not None and stage == Stage.VALID and self.checkpointer is not None:
            meta, keys = self.best_by(record)
            self.save({**meta, "epoch": epoch}, **keys)

    def measure_more(self, stage: Stage) -> dict[str, Any]:
        """Numbers of a log point besides those of the tally; every rank has to call this."""
        return {}

    def best_by(self, record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """By what the best checkpoints are kept.

        Arguments
        ---------
        record : dict
            The numbers of a validation.

        Returns
        -------
        meta : dict
            Numbers for the checkpoint.
        keys : dict
            The ``min_keys`` or ``max_keys`` of ``save``, which name one of them.
        """
        key, name = self.tally.best
        return {key: record[name]}, {"min_keys": [key]}

    def log(self, stage: Stage, record: dict) -> None:
        """Writes a log point; every rank has to call this."""
        epoch = self.hparams.epoch_counter.current
        record = {
            "step": self.optimizer_step, "epoch": epoch, "stage": stage.name.lower(), **record,
            "run_seconds": self.clock.seconds(),
        }  # fmt: skip
        if stage == Stage.TRAIN:
            record.update(lr=self.learning_rate, grad_norm=self.steps.grad_norm)
        self.run_log.write(record)

    # ---- a step ----------------------------------------------------------------------------

    @override
    def fit_batch(self, batch):
        """Trains on a micro-batch; if it is the last one of its step, makes the step."""
        should_step = self.place.ends_step(self.step)
        ids = [] if is_empty(batch) else list(getattr(batch, "id", []))
        self.on_fit_batch_start(batch, should_step)
        self.steps.begin_batch(ids)
        self.watchdog.tick("the forward pass")
        with self.no_sync(not should_step):
            with self.training_ctx:
                outputs = self.compute_forward(batch, Stage.TRAIN)
                loss = self.compute_objectives(outputs, batch, Stage.TRAIN)
            # A rank without a batch goes through the step with a placeholder.
            share = 0.0 if is_empty(batch) else self.place.share_of_step(self.step)
            self.steps.backward(loss, share)
        if should_step:
            self.steps.take(self.optimizer_step + 1)
            self.optimizer_step += 1
        self.on_fit_batch_end(batch, outputs, loss, should_step)
        if should_step:
            self.on_optimizer_step()
        return loss.detach()

    def trains_encoder(self, stage: Stage) -> AbstractContextManager[Any]:
        """What the encoder runs in: the first ``freeze_steps`` of a training do not change it."""
        frozen = stage == Stage.TRAIN and self.optimizer_step < self.hparams.freeze_steps
        return torch.no_grad() if frozen else contextlib.nullcontext()

    def before_step(self, good: torch.Tensor) -> None:
        """Called before a step changes the parameters; see ``GradientStep``."""

    def after_step(self, good: torch.Tensor) -> None:
        """Called after a step has changed the parameters, if it is ``good``; see ``GradientStep``.

        The host does not read ``good``: nothing waits for the device.
        """

    def on_optimizer_step(self) -> None:
        """Called when ``optimizer_step`` has changed: after each step, and after a load."""

    @override
    def on_fit_batch_start(self, batch, should_step):
        """Seeds the global generators, from which dropout draws, for this batch."""
        epoch = self.hparams.epoch_counter.current
        seed_global_generators(self.hparams.seed, "dropout", epoch, self.batch_number)

    @override
    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Logs at each ``log_interval`` of optimiser steps, and shows progress."""
        if should_step and self.optimizer_step % self.hparams.log_interval == 0:
            self.steps.read()
            record = self.tally.interval(self.optimizer_step)
            if record is not None:
                self.log(Stage.TRAIN, record)
                self.progress.show(record)
        self.time_left.count_batch(self.optimizer_step, self.place.turns - self.step)
        self.progress.update(str(self.time_left))

    @override
    def update_average(self, loss, avg_loss):
        """The mean loss of an epoch's batches, in training after the last of them only.

        SpeechBrain 1.1.2 waits for each loss here, to show it in its progress bar.
        """
        if not self.modules.training:
            return super().update_average(loss, avg_loss)
        is_last = self.step >= self.place.turns or self._optimizer_step_limit_exceeded
        return self.steps.mean_loss() if is_last else avg_loss

    # ---- stopping and saving ---------------------------------------------------------------

    @override
    def _should_save_intra_epoch_ckpt(self, last_ckpt_time, steps_since_ckpt):
        """Whether to save: only after a whole step, and on all ranks or none.

        SpeechBrain 1.1.2 saves in the middle of an accumulation, whose gradients are then lost.
        """
        self.place.count_batch(self.step)
        if not self.place.ends_step(self.step):
            return False
        minutes = (time.time() - last_ckpt_time) / 60
        due = 0 < self.ckpt_interval_minutes < minutes
        due = due or 0 < self.ckpt_interval_steps <= steps_since_ckpt
        stopping, due = self.meeting.meet(self.optimizer_step, due)
        if stopping:
            self.stop()
        return due and self.checkpointer is not None

    @override
    def _save_intra_epoch_ckpt(self):
        self.save({INTRA_EPOCH_CKPT_FLAG: True}, end_of_epoch=False)

    def save(
        self,
        meta: dict[str, Any],
        *,
        end_of_epoch: bool = True,
        min_keys: Sequence[str] = (),
        max_keys: Sequence[str] = (),
    ) -> Any:
        """Writes a checkpoint and drops the oldest; every rank has to call this.

        Returns
        -------
        checkpoint : speechbrain.utils.checkpoints.Checkpoint or None
            None if there was no room for it.
        """
        self.steps.read()
        self.steps.check_finite(self.optimizer_step)
        self.parts.collect()
        self.watchdog.tick("saving a checkpoint")
        predicate = None if end_of_epoch else lambda saved: INTRA_EPOCH_CKPT_FLAG in saved.meta
        with self.time_left.pause(CHECKPOINT):
            return self.checkpointer.save_and_keep_only(
                meta={"step": self.optimizer_step, **meta},
                end_of_epoch=end_of_epoch,
                num_to_keep=self.hparams.keep_checkpoints,
                min_keys=list(min_keys),
                max_keys=list(max_keys),
                ckpt_predicate=predicate,
                verbosity=logging.INFO if end_of_epoch else logging.DEBUG,
            )

    def stop_if_told(self) -> None:
        """Stops the run in a validation; every rank has to call this after each batch."""
        stopping, _ = self.meeting.meet(self.optimizer_step)
        if stopping:
            self.stop()

    def stop(self) -> NoReturn:
        """Saves and ends the program; every rank has to call this."""
        if self.checkpointer is None:
            self.meeting.end(self.optimizer_step, "there is no checkpointer, nothing is saved")
        saved = self.save({INTRA_EPOCH_CKPT_FLAG: True}, end_of_epoch=False)
        if saved is None:
            raise RunError(self.checkpointer.save_failed)
        where = f"saved in {saved.path}; the same command goes on from there"
        self.meeting.end(self.optimizer_step, where)
