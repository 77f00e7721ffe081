"""The Brain of a run that lasts for days: it saves, stops, resumes and fails as one."""

import hashlib
import logging
import math
import time
from contextlib import ExitStack

import torch
from speechbrain.core import INTRA_EPOCH_CKPT_FLAG
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.logger import get_logger

from ..data.batches import RankBatchSampler
from ..errors import RunError
from ..processes.launcher import end_of_launcher, launcher_has_ended
from ..processes.signals import Stopped, StopSignals
from ..ranks import add_over_ranks, gather_over_ranks, leave_group, rank, world_size
from .changed_keys import (
    changed_keys,
    check_tables,
    describe,
    keys_in_force,
    warn_of_changes,
    warn_of_learning_rate,
)
from .checkpoint_contents import OtherModel, other_model
from .checkpoints import Checkpointer
from .device_options import (
    check_device,
    check_module_keys,
    drops_layers,
    given_options,
    module_errors,
)
from .keys import RUN, check_values
from .lost_workers import explain_lost_workers
from .place import check_setup, check_state, run_setup
from .randomness import seed_global_generators
from .steps import FiniteStepsBrain
from .watchdog import Watchdog

logger = get_logger(__name__)


@register_checkpoint_hooks
class LongRunBrain(FiniteStepsBrain):
    """A Brain whose interrupted run is, to the last bit on a CPU, the one never interrupted.

    Its place in the epoch is the number of batches that all ranks have taken, and whatever draws
    random numbers is seeded from that place: so a checkpoint holds no state of generators or
    loaders, and neither the number of workers nor that of ranks matters to it.

    Hyperparameters: ``hang_minutes``, ``max_bad_audio``, ``resume_with_changes``,
    ``keep_checkpoints``, and those of ``brainquant.training.place``.
    """

    hparams_read = RUN
    rank_states = None  # what each rank gave for the save that is under way
    setup = None  # of ``run_setup``, from the start of ``fit``
    keys = None  # of ``keys_in_force``, from the start of ``fit``
    changed = {}  # keys that are not those of the checkpoint, see ``changed_keys``
    recovered = None  # ``run_state`` of the checkpoint that ``fit`` goes on from
    went_on = False  # whether there was something left to train, or to validate

    def __init__(self, modules, opt_class, hparams, run_opts, checkpointer):
        if checkpointer is not None and not isinstance(checkpointer, Checkpointer):
            raise ValueError(
                f"checkpointer: {type(checkpointer).__module__}.{type(checkpointer).__name__} "
                f"cannot be trusted after a kill (SpeechBrain 1.1.2); say checkpointer: "
                f"!new:brainquant.training.checkpoints.Checkpointer in your YAML"
            )
        hparams = check_values(hparams, self.hparams_read)
        check_device({**hparams, **given_options(run_opts)})
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        if checkpointer is not None:  # the run itself first: it knows what has changed
            checkpointer.recoverables = {"brain": self, **checkpointer.recoverables}
        self.uncompiled = {}  # modules that are compiled, as they were
        self.batches_done = 0  # of this epoch, on all ranks
        self.resumed = False  # in the middle of an epoch, and until the end of that epoch
        self.bad_audio = {}  # why clips could not be read, by ID, on all ranks
        self.new_bad_audio = {}  # of this rank, until the others know of it
        self.watchdog = Watchdog(self.hparams.hang_minutes)

    def tick(self, phase):
        """Tells the watchdog that this rank goes on."""
        self.watchdog.tick(phase)

    # ---- the run as a whole ----------------------------------------------------------------

    def fit(self, epoch_counter, train_set, valid_set=None, **kwargs):
        """Trains as ``speechbrain.Brain.fit`` does, on loaders of ``make_loaders``; see there.

        Raises
        ------
        RunError
            Where the run cannot go on; the message says why.
        Stopped
            After a signal and a checkpoint.
        """
        self.train_sampler = train_set.batch_sampler
        if not isinstance(self.train_sampler, RankBatchSampler):
            raise ValueError(
                f"the batch_sampler of train_set is a {type(self.train_sampler).__name__}, whose "
                f"place in an epoch cannot be kept; use brainquant.data.batches.make_loaders, or "
                f"put yours into a RankBatchSampler"
            )
        self.num_clips = len(train_set.dataset) + len(valid_set.dataset if valid_set else [])
        batches_per_step = world_size() * self.grad_accumulation_factor
        self.setup = run_setup(vars(self.hparams), train_set.dataset, batches_per_step)
        self.keys = keys_in_force(self)
        self.went_on, self.signals = False, StopSignals()
        with (
            ExitStack() as self.until_fit_ends,
            self.watchdog,
            explain_lost_workers(train_set, valid_set),
        ):
            super().fit(epoch_counter, train_set, valid_set, **kwargs)
            stopping, _ = self.meet()
        if self.checkpointer is not None and self.checkpointer.save_failed:
            raise RunError(self.checkpointer.save_failed)
        if stopping:
            self.exit_after_signal("the run was at its end")

    def on_fit_start(self):
        """Compares the ranks, then loads the last checkpoint."""
        self.tick("comparing the ranks")
        self.check_ranks_agree()
        self.tick("loading a checkpoint")
        try:
            super().on_fit_start()
        except OtherModel as error:
            if not self.changed:
                raise
            folder = self.checkpointer.checkpoints_dir
            raise other_model(folder, describe(self.changed)) from error
        if self.recovered is not None:
            warn_of_changes(self.changed)
            limit = self.optimizer_step_limit
            # Beyond its limit a run has nothing to train, and its schedule has no rates.
            if self.optimizer_step and (limit is None or self.optimizer_step <= limit):
                self.set_learning_rates(self.optimizer_step)
                warn_of_learning_rate(self)

    def _compile(self):
        """SpeechBrain's, with errors that name the modules."""
        check_module_keys(self)
        before = dict(self.modules.items())
        try:
            super()._compile()
        except Exception as error:  # of torch.jit
            reason = " ".join(str(error).split())[:200]
            raise RunError(
                f"jit_module_keys: one of {', '.join(self.jit_module_keys or before)} cannot be "
                f"scripted ({reason}); name other modules, or say compile_module_keys:"
            ) from error
        self.uncompiled = {n: m for n, m in before.items() if self.modules[n] is not m}

    def _wrap_distributed(self):
        """SpeechBrain's; where layers are dropped, their parameters are not waited for."""
        if drops_layers(self.modules) and not self.find_unused_parameters:
            self.find_unused_parameters = True
            logger.info("find_unused_parameters is set, since the encoder drops layers")
        super()._wrap_distributed()

    def check_ranks_agree(self):
        """Raises a RunError where ranks have built other modules or see other clips."""
        if world_size() == 1:
            return
        built = {"clips and batches": str(self.setup)}
        for name, module in self.modules.items():
            digest = hashlib.sha256()
            for tensor in module.state_dict().values():
                if isinstance(tensor, torch.Tensor):
                    digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
            built[name] = digest.hexdigest()
        everywhere = gather_over_ranks(built)
        for number, other in enumerate(everywhere):
            for name in built:
                if other[name] != everywhere[0][name]:
                    raise RunError(
                        f"{name} of rank {number} is not that of rank 0: ranks would learn "
                        f"different things; give all ranks the same seed: and the same files"
                    )

    def _fit_train(self, train_set, epoch, enable):
        """SpeechBrain's epoch, from the batch where the checkpoint left it.

        A finished run that is started again has nothing to train, and nothing to validate.
        """
        self.finished = self._optimizer_step_limit_exceeded and not self.resumed
        if self.finished:
            return
        if not self.went_on:  # from here on there is something to save
            self.until_fit_ends.enter_context(self.signals)
        self.went_on = True
        if not self.resumed:
            self.batches_done = 0
        self.train_sampler.set_epoch(epoch)
        self.train_sampler.start = self.batches_done
        self.turns = len(self.train_sampler)
        self.start_steps()
        with module_errors(self.modules):
            super()._fit_train(Watched(train_set, self.watch_training), epoch, enable)
        self.resumed = False

    def _fit_valid(self, valid_set, epoch, enable):
        """SpeechBrain's validation, unless the run was finished before it began.

        Without a validation, the end of the epoch is saved all the same.
        """
        if self.finished:
            return
        if valid_set is not None:
            with module_errors(self.modules):
                super()._fit_valid(Watched(valid_set, self.watch_validation), epoch, enable)
        elif self.checkpointer is not None:
            self.save({"epoch": epoch})

    def watch_training(self, loader):
        """Batches of an epoch; the watchdog knows what is waited for."""
        self.tick("reading a training batch")
        for batch in loader:
            self.note_skipped(batch)
            yield batch
            self.tick("reading a training batch")
        self.tick("the end of a training epoch")

    def watch_validation(self, loader):
        """Batches of a validation, which may be stopped after each of them."""
        self.tick("reading a validation batch")
        for batch in loader:
            self.tick("a validation batch")
            self.note_skipped(batch)
            yield batch
            stopping, _ = self.meet()
            if stopping:
                self.stop()
            self.tick("reading a validation batch")
        self.tick("the end of a validation")

    def on_fit_batch_start(self, batch, should_step):
        """Seeds what draws from the global generators in this batch."""
        epoch = self.hparams.epoch_counter.current
        seed_global_generators(self.hparams.seed, "dropout", epoch, self.batch_number)

    # ---- stopping and saving ---------------------------------------------------------------

    def meet(self, save_due=False):
        """Ranks tell each other, after each step, what all of them have to act on.

        Arguments
        ---------
        save_due : bool
            Whether a checkpoint is due by the clock of this rank; that of rank 0 counts.

        Returns
        -------
        stopping : bool
            Whether a rank was told to stop.
        save_due : bool
            Whether to save.
        """
        self.tick("the meeting of the ranks")
        received = self.signals.received is not None
        stopping, save_due, new_bad_audio = add_over_ranks(
            received, save_due and rank() == 0, len(self.new_bad_audio)
        )
        if new_bad_audio:
            self.count_bad_audio()
        return stopping > 0, save_due > 0

    def _should_save_intra_epoch_ckpt(self, last_ckpt_time, steps_since_ckpt):
        """Whether to save: only where a step has ended, and on all ranks or none.

        SpeechBrain 1.1.2 saves in the middle of an accumulation, whose gradients are then lost.
        """
        self.batches_done = min(
            self.train_sampler.start + self.step * world_size(), self.train_sampler.total
        )
        if not self.should_step:
            return False
        minutes = (time.time() - last_ckpt_time) / 60
        due = 0 < self.ckpt_interval_minutes < minutes
        due = due or 0 < self.ckpt_interval_steps <= steps_since_ckpt
        stopping, due = self.meet(due)
        if stopping:
            self.stop()
        return due and self.checkpointer is not None

    def _save_intra_epoch_ckpt(self):
        self.save({INTRA_EPOCH_CKPT_FLAG: True}, end_of_epoch=False)

    def save(self, meta, *, end_of_epoch=True, min_keys=()):
        """Writes a checkpoint, on every rank, and drops the oldest.

        Returns
        -------
        checkpoint : speechbrain.utils.checkpoints.Checkpoint or None
            None where there was no room for it.
        """
        self.read_steps()
        self.check_finite()
        self.rank_states = gather_over_ranks(self.rank_state())
        self.tick("saving a checkpoint")
        predicate = None if end_of_epoch else lambda saved: INTRA_EPOCH_CKPT_FLAG in saved.meta
        saved = self.checkpointer.save_and_keep_only(
            meta={"step": self.optimizer_step, **meta},
            end_of_epoch=end_of_epoch,
            num_to_keep=self.hparams.keep_checkpoints,
            min_keys=list(min_keys),
            ckpt_predicate=predicate,
            verbosity=logging.INFO if end_of_epoch else logging.DEBUG,
        )
        self.rank_states = None
        return saved

    def stop(self):
        """Saves and ends the program: all ranks come here together."""
        if self.checkpointer is None:
            self.exit_after_signal("there is no checkpointer, nothing is saved")
        saved = self.save({INTRA_EPOCH_CKPT_FLAG: True}, end_of_epoch=False)
        if saved is None:
            raise RunError(self.checkpointer.save_failed)
        self.exit_after_signal(f"saved in {saved.path}; the same command goes on from there")

    def exit_after_signal(self, place):
        """Ends the program as a scheduler expects it."""
        signal = cause = self.signals.received
        if launcher_has_ended():
            cause = end_of_launcher()
        cause = cause or "a signal to another rank"
        logger.warning(f"Stopped by {cause} after step {self.optimizer_step}: {place}")
        leave_group()
        raise Stopped(signal or "SIGTERM")

    def rank_state(self):
        """What only this rank knows, as a dictionary of tensors and numbers."""
        return {}

    def run_state(self):
        """What all ranks know, as a dictionary of tensors, numbers and texts."""
        return {
            "optimizer_step": self.optimizer_step,
            "batches_done": self.batches_done,
            "nonfinite_in_a_row": self.nonfinite_in_a_row,
            "grad_norm": self.grad_norm,  # an epoch may be logged after its last step was saved
            "bad_audio": self.bad_audio,
            "setup": self.setup,
            "keys": self.keys,
            "lr": self.schedule.rates[0] if self.schedule else None,
            "finished": self._optimizer_step_limit_exceeded,
            "rank_states": self.rank_states or [self.rank_state()],
        }

    def load_run_state(self, state, same_epoch):
        """Takes up what ``run_state`` gave.

        Arguments
        ---------
        state : dict
            What was saved.
        same_epoch : bool
            Whether its epoch goes on where it was.
        """
        self.batches_done = state["batches_done"] if same_epoch else 0
        self.nonfinite_in_a_row = state["nonfinite_in_a_row"]
        self.grad_norm = state["grad_norm"]
        self.bad_audio = state["bad_audio"]

    # In the place of SpeechBrain's, which keep the step and a running loss.
    @mark_as_saver
    def _save(self, path):
        torch.save(self.run_state(), path)

    @mark_as_loader
    def _recover(self, path, end_of_epoch):
        state = torch.load(path, map_location="cpu", weights_only=True)
        check_state(state)
        self.optimizer_step = state["optimizer_step"]
        if self.setup is None:  # loaded to be used, not to be trained
            return
        allowed = self.hparams.resume_with_changes
        same_batches = check_setup(state["setup"], self.setup, allowed)
        # A checkpoint of an earlier version does not know its keys.
        self.changed = changed_keys(state.get("keys") or self.keys, self.keys)
        if not allowed:
            check_tables(self.changed)
        self.recovered = state
        self.resumed = not end_of_epoch
        self.load_run_state(state, same_epoch=self.resumed and same_batches)

    # ---- audio that cannot be read ---------------------------------------------------------

    def note_skipped(self, batch):
        """Remembers what was left out of a batch until the ranks meet."""
        for clip, reason in batch.left_out:
            if clip not in self.bad_audio:
                self.new_bad_audio[clip] = reason

    def count_bad_audio(self):
        """Tells of clips that were left out, and ends the run where they are too many."""
        for clips in gather_over_ranks(self.new_bad_audio):
            for clip, reason in clips.items():
                if clip not in self.bad_audio:
                    self.bad_audio[clip] = reason
                    self.on_clip_left_out(clip, reason)
        self.new_bad_audio = {}
        share = self.hparams.max_bad_audio
        if len(self.bad_audio) > math.ceil(share * self.num_clips):
            clip, reason = next(reversed(self.bad_audio.items()))
            raise RunError(
                f"{len(self.bad_audio)} of {self.num_clips} clips cannot be used, more than "
                f"max_bad_audio: {share} allows; the last is {clip!r}: {reason}. All are in "
                f"left_out.jsonl: mend them, or take them out of the manifest"
            )

    def on_clip_left_out(self, clip, reason):
        """Called once for each clip, on every rank."""


class Watched:
    """A loader whose batches go through a function on their way, with the loader's length."""

    def __init__(self, loader, watch):
        self.loader = loader
        self.watch = watch

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        return self.watch(self.loader)
