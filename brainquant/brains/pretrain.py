"""The Brain that every pretraining shares: it fits and anneals quantisers and draws masks."""

from typing import Any

import torch
from speechbrain import Stage
from speechbrain.utils.logger import get_logger
from typing_extensions import override

from ..data.silence import check_sound
from ..errors import RunError
from ..masking import span_mask
from ..models.quick import quicken
from ..monitoring.code_tally import CodeTally
from ..monitoring.health import unigram_loss
from ..quantisers.base import check_quantiser_class
from ..ranks import world_size
from ..training.begin_from import load_weights
from ..training.brain import RunBrain
from ..training.keys import PRETRAIN
from ..training.layer_rates import check_weight_decay, layer_groups
from ..training.pull_to_start import PullToStart
from ..training.quality import NOT_MEASURED, Quality, check_what_keeps_the_best
from ..training.randomness import derived_generator
from ..training.start_loss import StartLoss
from ..training.time_left import EPOCH_END, QUALITY
from .fitted_quantiser import fit_quantiser

logger = get_logger(__name__)


class PretrainBrain(RunBrain):
    """Trains an encoder on the codes of a quantiser.

    A run that begins with weights (``begin_from:``, or an encoder of a public model) validates
    before the first step that changes the encoder; see ``StartLoss``.

    A subclass adds ``compute_forward`` and ``compute_objectives``, which gives the numbers of a
    micro-batch to ``observe``. ``modules["quantiser"]`` keeps the contract of
    ``brainquant.quantisers.base``, and ``modules["encoder"]`` is a ``SpeechEncoder``.
    Hyperparameters: ``begin_from``; ``freeze_steps``; ``layer_decay`` (factor of the learning
    rate from a layer to the one below; other modules have that of the last layer);
    ``pull_to_start``, see ``PullToStart``; ``quality_minutes`` and ``keep_best_by``, see
    ``Quality``.
    """

    hparams_read = RunBrain.hparams_read | PRETRAIN

    tally: CodeTally

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.check_encoder()
        if self.hparams.layer_decay < 1:
            check_weight_decay(self.remove_vector_weight_decay)
        if self.hparams.quick_layers:
            quicken(self.modules)
        self.start_loss = StartLoss(self.hparams.freeze_steps)
        self.pull = PullToStart(self.hparams.pull_to_start, self.raw("encoder"))
        self.quality = Quality(self.hparams.quality_minutes, seed=self.hparams.seed)
        check_what_keeps_the_best(self.hparams)
        self.parts.add_last(
            start_loss=self.start_loss, pull_to_start=self.pull, quality=self.quality
        )

    @override
    def make_tally(self) -> CodeTally:
        """Counts the codes of the quantiser."""
        check_quantiser_class(self.quantiser)
        return CodeTally(
            self.quantiser.num_codebooks,
            self.quantiser.codebook_size,
            sample_rate=self.hparams.sample_rate,
            describe=self.describe,
            device=self.device,
        )

    @property
    def quantiser(self) -> Any:
        """The quantiser, without what distributes it over ranks."""
        return self.raw("quantiser")

    def observe(self, stage: Stage, codes_NG: torch.Tensor, **sums: float | torch.Tensor) -> None:
        """Adds a micro-batch to what is logged; see ``CodeTally.observe``."""
        self.tally.observe(stage, codes_NG, empty=self.batch_is_empty, **sums)

    def describe(self, values: dict[str, float], counts_GV: torch.Tensor) -> dict[str, float]:
        """Numbers of a log point that belong to the objective.

        Arguments
        ---------
        values : dict of str to float
            Sums since the last log point.
        counts_GV : torch.Tensor
            Counts of the codes since then.

        Returns
        -------
        numbers : dict of str to float
            Here the loss of the unigram of the training codes, which the loss has to beat.
        """
        return {"unigram_loss": unigram_loss(counts_GV, self.tally.run.counts)}

    @property
    def min_samples(self) -> int:
        """Samples of the shortest clip in which something can be masked."""
        raise NotImplementedError

    def check_encoder(self) -> None:
        """Raises a ValueError if the encoder is made for another sample rate."""
        encoder = self.raw("encoder")
        if (rate := self.hparams.sample_rate) != encoder.sample_rate:
            remedy = "write sample_rate: !ref <sample_rate> under its features or under encoder:"
            if encoder.origin:
                remedy = f"set sample_rate: {encoder.sample_rate}, and the audio is resampled"
            raise ValueError(
                f"sample_rate is {rate}, but the encoder is made for {encoder.sample_rate} Hz; "
                f"{remedy}"
            )

    def check_span(self) -> None:
        """Raises a ValueError if no clip is long enough for a masked span with a target."""
        longest = self.hparams.max_seconds
        if (needed := self.min_samples / self.hparams.sample_rate) > longest:
            raise ValueError(
                f"mask_length is {self.hparams.mask_length} frames, for which a clip needs "
                f"{needed:g} s, but max_seconds is {longest:g}: set mask_length: lower in your "
                f"YAML, as in mask_length: 10, or max_seconds: higher"
            )

    def generators(self, stage: Stage) -> tuple[torch.Generator, torch.Generator]:
        """Generators of a batch's masks, on the host, and of its noise or negatives, on the device.

        On CPU both are the same generator. They are derived from the seed and the number of the
        batch in the epoch, counted over ranks. So each rank draws its own masks, and a resumed
        run draws those of an uninterrupted one. Several ranks draw the masks of one rank that
        accumulates the same batches. Validation draws the same masks in every epoch.
        """
        batch = (0, self.step)
        if stage == Stage.TRAIN:
            batch = (self.hparams.epoch_counter.current, self.batch_number)
        of_masks = derived_generator("cpu", self.hparams.seed, stage.name, *batch)
        if torch.device(self.device).type == "cpu":
            return of_masks, of_masks
        return of_masks, derived_generator(self.device, self.hparams.seed, stage.name, *batch)

    def draw_mask(
        self,
        lengths_B: torch.Tensor,
        num_frames: int,
        generator: torch.Generator,
        *,
        align: int = 1,
    ) -> torch.Tensor:
        """Spans of ``mask_length`` frames, as ``brainquant.masking.span_mask`` draws them.

        The host draws them, so it knows the number of masked frames without waiting for the
        device. In the placeholder of a rank without clips nothing is masked.
        """
        ratio, length = self.hparams.mask_ratio, self.hparams.mask_length
        mask_BT = span_mask(lengths_B, num_frames, ratio, length, align=align, generator=generator)
        return mask_BT & (not self.batch_is_empty)

    # ---- the run as a whole ----------------------------------------------------------------

    @override
    def prepare_fit(self, train_set: Any, valid_set: Any = None) -> None:
        """Also keeps the training clips, to which the quantiser may be fitted.

        The quantiser looks up the clips, if it has codes for certain clips only.
        """
        super().prepare_fit(train_set, valid_set)
        self.train_clips, self.valid_set = train_set.dataset, valid_set
        datasets = [loader.dataset for loader in (train_set, valid_set) if loader]
        clips = (
            (clip_id, dataset.data[clip_id]["duration"])
            for dataset in datasets
            for clip_id in dataset.data_ids
        )
        try:
            self.quantiser.check_clips(self.raw("encoder"), clips)
        except ValueError as error:
            raise RunError(str(error)) from error
        if valid_set is not None:
            batches = world_size() * self.grad_accumulation_factor
            self.quality.prepare(self.raw("encoder"), train_set, valid_set, batches)

    @override
    def on_fit_start(self):
        """Loads the last checkpoint, or the weights of ``begin_from``; fits the quantiser."""
        super().on_fit_start()
        if self.setup.loaded is None:
            self.begin_with_weights()
        try:
            check_sound(self.train_clips, derived_generator("cpu", self.hparams.seed, "sound"))
        except ValueError as error:
            raise RunError(f"train_csv: {error}") from error
        fit_quantiser(self)
        if self.quality.is_wanted and not self.optimizer_step and not self.quality.start:
            encoder, clips = self.raw("encoder"), self.valid_set.dataset
            with self.time_left.pause(QUALITY):
                self.quality.measure_start(encoder, clips, self.watchdog.tick)
            if self.hparams.keep_best_by != "loss" and not self.quality.start:
                raise RunError(
                    f"keep_best_by is {self.hparams.keep_best_by}, but {NOT_MEASURED}; set "
                    f"valid_csv: to more speech, or keep_best_by: loss"
                )

    @override
    def measure_more(self, stage: Stage) -> dict[str, Any]:
        """The quality of the layers, in validations in which it is due."""
        epochs = self.hparams.epoch_counter
        is_last = self._optimizer_step_limit_exceeded or epochs.current == epochs.limit
        if stage != Stage.VALID or not self.quality.is_due(self.optimizer_step, is_last=is_last):
            return {}
        with self.time_left.pause(QUALITY):
            numbers = self.quality.measure(
                self.raw("encoder"), self.valid_set.dataset, self.optimizer_step, self.watchdog.tick
            )
        return {**numbers, **self.quality.start} if numbers else {}

    @override
    def best_by(self, record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """By the loss, or by the units of all layers, where they were measured."""
        meta, keys = super().best_by(record)
        if self.hparams.keep_best_by == "loss":
            return meta, keys
        if "mean_units_repeat" in record:
            meta["valid_units"] = record["mean_units_repeat"]
        return meta, {"max_keys": ["valid_units"]}

    def begin_with_weights(self) -> None:
        """Loads the weights of ``begin_from``; prepares what compares the run with them."""
        if self.hparams.begin_from is not None:
            modules = {name: self.raw(name) for name in self.modules}
            load_weights(self.hparams.begin_from, modules, self.setup.keys)
        elif origin := self.raw("encoder").origin:
            logger.info(
                f"Begins with the weights of {origin}. New: optimiser, schedule, epochs and counts"
            )
        elif self.pull.strength:
            raise RunError(
                f"pull_to_start is {self.pull.strength:g}, but the weights of this run are random; "
                f"set begin_from: to a run, or pull_to_start: 0"
            )
        else:
            return
        self.pull.begin()
        self.start_loss.is_wanted = self.valid_set is not None
        if not self.start_loss.is_wanted:
            logger.info(
                "valid_csv is null: the log cannot say whether this run is better than the model "
                "as it came"
            )

    # ---- steps -----------------------------------------------------------------------------

    @override
    def parameter_groups(self) -> Any:
        """Groups by layer, where their learning rates differ; all other modules are the last."""
        if self.hparams.layer_decay == 1:
            return super().parameter_groups()
        layers = layer_groups(self.raw("encoder"), self.hparams.layer_decay)
        others = [module for name, module in self.modules.items() if name != "encoder"]
        trained = [p for module in others for p in module.parameters() if p.requires_grad]
        return [*layers, {"params": trained, "lr_scale": 1.0}]

    @property
    @override
    def learning_rate(self) -> float:
        """The highest one."""
        return self.optimizer.param_groups[-1]["lr"]

    @override
    def on_fit_batch_start(self, batch, should_step):
        """Also validates the model as it came, before the first step that changes the encoder."""
        if self.start_loss.is_due(self.optimizer_step):
            with self.time_left.pause(EPOCH_END):
                record = self.validate_between_steps(self.valid_set)
            self.start_loss.keep(record)
            if record is not None:
                self.log(Stage.VALID, record)
        super().on_fit_batch_start(batch, should_step)

    @override
    def log(self, stage: Stage, record: dict) -> None:
        """Also shows the loss of the model as it came, in validations."""
        known = self.start_loss.numbers() if stage == Stage.VALID else {}
        super().log(stage, {**record, **known})

    @override
    def before_step(self, good: torch.Tensor) -> None:
        """Pulls the encoder towards the weights that it began with."""
        self.pull.apply(self.optimizer.param_groups, good)

    @override
    def on_optimizer_step(self):
        """Anneals every quantiser, from the count of steps that the checkpoint holds."""
        for module in self.modules.modules():
            if hasattr(module, "update_temp"):
                module.update_temp(self.optimizer_step)
