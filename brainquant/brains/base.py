"""The Brain that every pretraining shares: it anneals quantisers and draws what is random."""

from speechbrain import Stage
from torch.nn.parallel import DistributedDataParallel

from ..masking import span_mask
from ..training.finite_steps import is_empty
from ..training.randomness import derived_generator
from .watched import WatchedBrain


class PretrainBrain(WatchedBrain):
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
    checkpointer : brainquant.training.checkpoints.Checkpointer or None
        Saves modules, optimiser, sums and code counts.
    """

    # Keys of the YAML that this Brain, the loaders and the reports read.
    hparams_read = frozenset({
        "train_csv", "valid_csv", "data_folder", "batch_seconds", "batch_clips", "num_buckets",
        "min_seconds", "max_seconds", "num_workers", "seed", "sample_rate", "resample",
        "mix_down", "max_bad_audio", "lr_schedule", "warmup_steps", "log_interval",
        "train_loggers", "keep_checkpoints", "hang_minutes", "resume_with_changes",
        "output_folder",
    })  # fmt: skip

    @property
    def min_samples(self):
        """The shortest clip in which something can be masked."""
        raise NotImplementedError

    def waveforms(self, batch):
        """Waveforms (batch, samples) and the number of samples of each, on the device."""
        self.batch_is_empty = is_empty(batch)
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
            place = (self.hparams.epoch_counter.current, self.batch_number)
        return derived_generator(self.device, self.hparams.seed, stage.name, *place)

    def draw_mask(self, lengths_B, num_frames, generator, *, align=1):
        """Spans of ``mask_length`` frames as ``brainquant.masking.span_mask`` draws them.

        A batch without a clip is a placeholder for its rank, of which nothing is predicted.
        """
        ratio, length = self.hparams.mask_ratio, self.hparams.mask_length
        mask_BT = span_mask(lengths_B, num_frames, ratio, length, align=align, generator=generator)
        return mask_BT & (not self.batch_is_empty)

    # ---- annealing -------------------------------------------------------------------------

    def on_fit_batch_start(self, batch, should_step):
        """Anneals every quantiser, from the count of steps that the checkpoint holds."""
        super().on_fit_batch_start(batch, should_step)
        self.anneal()

    def anneal(self):
        """Gives every quantiser the temperature of this step."""
        for module in self.modules.modules():
            if hasattr(module, "update_temp"):
                module.update_temp(self.optimizer_step)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Anneals, since a run that was resumed here has trained on no batch yet; then logs."""
        self.anneal()
        super().on_stage_end(stage, stage_loss, epoch)
