"""The Brain that every pretraining shares: it anneals quantisers and draws what is random."""

from speechbrain import Stage

from ..masking import span_mask
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

    @property
    def min_samples(self):
        """The shortest clip in which something can be masked."""
        raise NotImplementedError

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
