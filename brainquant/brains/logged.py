"""What every Brain here has: audio in batches, and a log that tells all that becomes of a run."""

from speechbrain.utils.logger import get_logger
from torch.nn.parallel import DistributedDataParallel

from ..data.batches import is_empty
from ..errors import RunError
from ..monitoring.run_log import RunLog
from ..ranks import on_main_process
from ..training.brain import LongRunBrain
from ..training.hparams import run_folder, show_options
from ..training.keys import LOADERS, RECIPE, RUN
from ..training.needed_files import keep_needed_files

logger = get_logger(__name__)


class LoggedBrain(LongRunBrain):
    """Keeps a log of the run whose lines are those of the run that was never interrupted.

    A subclass sets ``run_log`` to what ``open_log`` gives when it is made. Arguments are those of
    ``PretrainBrain``.
    """

    # Keys of the YAML that the Brain, the loaders and the reports read.
    hparams_read = {
        **LOADERS, **RUN, "seed": RECIPE["seed"], "output_folder": RECIPE["output_folder"]
    }  # fmt: skip

    def open_log(self, **options):
        """The log in the run's folder; ``options`` are those of ``RunLog``."""
        folder = run_folder(self.hparams.output_folder, self)
        trial = folder != self.hparams.output_folder  # its numbers are not the real run's
        return RunLog(folder, [] if trial else self.hparams.train_loggers, **options)

    def waveforms(self, batch):
        """Waveforms (batch, samples) on the device, and the samples of each on the host.

        What depends on lengths is known there without waiting for the device.
        """
        self.batch_is_empty = is_empty(batch)
        wavs_BL, relative_B = batch.sig
        lengths_B = (relative_B.cpu() * wavs_BL.shape[1]).round().long()
        return batch.to(self.device, non_blocking=True).sig.data, lengths_B

    def raw(self, name):
        """A module without what distributes it over ranks, or compiles it."""
        module = self.modules[name]
        module = module.module if isinstance(module, DistributedDataParallel) else module
        return self.uncompiled.get(name, module)

    def on_fit_start(self):
        """Loads the last checkpoint, then shows what is in force."""
        self.run_log.loaded = None
        super().on_fit_start()
        went_on = self.run_log.loaded is not None
        for name in self.modules:
            if getattr(self.raw(name), "lacks_weights", False):
                raise RunError(
                    f"{name} has no weights yet: the run that they came from is gone, and there is "
                    f"no checkpoint in {self.run_log.folder}; bring that run back"
                )
        on_main_process(lambda: keep_needed_files(self.run_log.folder, went_on=went_on))
        self.run_log.start(self.optimizer_step)
        show_options(self)

    def run_state(self):
        """The place of the run, and how far its log files are written."""
        return {**super().run_state(), "run_log": self.run_log.state_dict()}

    def load_run_state(self, state, same_epoch):
        """Takes up what ``run_state`` gave."""
        super().load_run_state(state, same_epoch)
        self.run_log.load_state_dict(state["run_log"])

    def on_step_left_out(self, number, what, ids):
        """Writes the batches of the step into ``left_out.jsonl``."""
        epoch = self.hparams.epoch_counter.current
        reason = f"{what} is not finite"
        self.run_log.leave_out(
            {"kind": "step", "step": number, "epoch": epoch, "reason": reason, "ids": ids}
        )

    def on_clip_left_out(self, clip, reason):
        """Writes the clip into ``left_out.jsonl``."""
        self.run_log.leave_out(
            {"kind": "clip", "step": self.optimizer_step, "id": clip, "reason": reason}
        )
        logger.warning(f"clip {clip!r} left out: {reason}")


def has_parameters(module):
    """Whether there is something to train in a module."""
    return any(True for _ in module.parameters())
