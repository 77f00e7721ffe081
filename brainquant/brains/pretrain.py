"""The Brain that every pretraining shares: it fits and anneals quantisers and draws masks."""

import copy

import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from ..data.batches import LeftOutClip
from ..data.silence import check_sound
from ..errors import RunError
from ..masking import span_mask
from ..models.quick import quicken
from ..ranks import on_main_process
from ..training.begin_from import load_weights
from ..training.keys import PRETRAIN
from ..training.randomness import derived_generator
from .logged import has_parameters
from .watched import WatchedBrain

logger = get_logger(__name__)


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

    hparams_read = WatchedBrain.hparams_read | PRETRAIN

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.hparams.quick_layers:
            quicken(self.modules)

    @property
    def min_samples(self):
        """The shortest clip in which something can be masked."""
        raise NotImplementedError

    def check_span(self):
        """Raises a ValueError where no clip is long enough for a masked span with a target."""
        longest = self.hparams.max_seconds
        if (needed := self.min_samples / self.hparams.sample_rate) > longest:
            raise ValueError(
                f"mask_length is {self.hparams.mask_length} frames, for which a clip needs "
                f"{needed:g} s, but max_seconds is {longest:g}: set mask_length: lower in your "
                f"YAML, as in mask_length: 10, or max_seconds: higher"
            )

    @torch.no_grad()
    def try_modules(self, names, function, *inputs):
        """What modules give of some inputs; a ValueError that names them where sizes do not fit."""
        self.modules.eval()
        try:
            return function(*inputs)
        except torch.OutOfMemoryError:
            raise
        except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"{names}: the sizes do not fit ({' '.join(str(error).split())}); correct them in "
                f"your YAML"
            ) from error

    def generators(self, stage):
        """What draws a batch's masks, on the host, and its noise or negatives, on the device.

        On CPU both are the same generator. They are derived from the seed and the number of the
        batch in the epoch, counted over ranks. So each rank draws its own masks, and a resumed
        run draws those of an uninterrupted one. Several ranks draw the masks of one rank that
        accumulates the same batches. Validation draws the same masks in every epoch.
        """
        place = (0, self.step)
        if stage == Stage.TRAIN:
            place = (self.hparams.epoch_counter.current, self.batch_number)
        of_masks = derived_generator("cpu", self.hparams.seed, stage.name, *place)
        if torch.device(self.device).type == "cpu":
            return of_masks, of_masks
        return of_masks, derived_generator(self.device, self.hparams.seed, stage.name, *place)

    def draw_mask(self, lengths_B, num_frames, generator, *, align=1):
        """Spans of ``mask_length`` frames as ``brainquant.masking.span_mask`` draws them.

        On the host: how many frames are masked is known there without waiting for the device. A
        batch without a clip is a placeholder for its rank, of which nothing is predicted.
        """
        ratio, length = self.hparams.mask_ratio, self.hparams.mask_length
        mask_BT = span_mask(lengths_B, num_frames, ratio, length, align=align, generator=generator)
        return mask_BT & (not self.batch_is_empty)

    # ---- what a quantiser needs to know of the corpus ---------------------------------------

    def quantiser_inputs(self, wavs_BL, lengths_B):
        """What the quantiser sees, (batch, frames, input_dim), and the valid frames of each."""
        raise NotImplementedError

    def fit(self, epoch_counter, train_set, valid_set=None, **kwargs):
        """Trains as ``speechbrain.Brain.fit`` does, after fitting a quantiser that asks for it."""
        self.train_clips = train_set.dataset
        super().fit(epoch_counter, train_set, valid_set, **kwargs)

    def on_fit_start(self):
        """Loads the last checkpoint, or the weights to begin with; fits what is not fitted."""
        super().on_fit_start()
        if self.recovered is None and self.hparams.begin_from is not None:
            modules = {name: self.raw(name) for name in self.modules}
            load_weights(self.hparams.begin_from, modules, self.keys)
        try:
            check_sound(self.train_clips, derived_generator("cpu", self.hparams.seed, "sound"))
        except ValueError as error:
            raise RunError(f"train_csv: {error}") from error
        quantiser = self.raw("quantiser")
        if quantiser.frames_to_fit:
            try:
                fitted = self.fit_quantiser()
            except ValueError as error:
                raise RunError(f"the quantiser cannot be fitted to train_csv: {error}") from error
            quantiser.load_state_dict(on_main_process(lambda: fitted))

    @torch.no_grad()
    def fit_quantiser(self):
        """Fits the quantiser to clips that are drawn from the whole corpus; gives its state.

        The same clips on every rank: a normalisation over the corpus adds up over ranks. A copy of
        it follows these clips, for it knows none yet and has to see each clip once only.
        """
        quantiser = self.raw("quantiser")
        self.modules.eval()
        kept = {n: m for n, m in self.modules.items() if not has_parameters(m) and n != "quantiser"}
        self.modules.update({name: copy.deepcopy(m).train() for name, m in kept.items()})
        try:
            frames = self.frames_of_the_corpus(quantiser.frames_to_fit)
        finally:
            self.modules.update(kept)
        if not frames:
            raise ValueError("none of its clips can be read")
        quantiser.fit(torch.cat(frames).to(self.device))
        logger.info(f"The quantiser is fitted to {sum(map(len, frames))} frames of the corpus")
        return {name: tensor.cpu() for name, tensor in quantiser.state_dict().items()}

    def frames_of_the_corpus(self, wanted):
        """What the quantiser sees of clips drawn at random, so many frames at most."""
        seen, frames = 0, []
        generator = derived_generator("cpu", self.hparams.seed, "fit the quantiser")
        hidden = self.noprogressbar or None  # None: only in a terminal
        progress = tqdm(total=wanted, desc="fitting the quantiser", unit=" frames", disable=hidden)
        for index in torch.randperm(len(self.train_clips), generator=generator).tolist():
            clip = self.train_clips[index]
            if isinstance(clip, LeftOutClip):  # the training reports it
                continue
            self.tick("fitting the quantiser")
            x_BTI, frames_B = self.quantiser_inputs(*self.waveforms(PaddedBatch([clip])))
            x_TI = x_BTI[0, : int(frames_B[0])].float().cpu()
            if x_TI.isfinite().all():
                frames.append(x_TI[: wanted - seen])
                seen += len(frames[-1])
                progress.update(len(frames[-1]))
            if seen == wanted:
                break
        progress.close()
        return frames

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
