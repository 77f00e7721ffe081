"""The Brain of a run that is judged by its error rates: for its log, checkpoints and tests."""

import os
import time

import torch
from speechbrain import Stage
from speechbrain.utils.distributed import ddp_all_reduce
from speechbrain.utils.logger import get_logger
from speechbrain.utils.metric_stats import ErrorRateStats

from ..errors import RunError
from ..own_files import open_own
from ..ranks import on_main_process, rank, world_size
from .logged import LoggedBrain

logger = get_logger(__name__)

SUMS = ("loss", "characters", "samples", "clips_too_short", "seconds")  # of an interval


class ErrorRateBrain(LoggedBrain):
    """Logs the loss per character and error rates, whatever interrupts the run.

    A subclass hands what is to be known of a micro-batch to ``observe`` and, of one that is not
    trained on, its texts to ``count_errors``. The checkpoint of the lowest word error rate in
    validation is kept, and tests are made with it.
    """

    def __init__(
        self, modules=None, opt_class=None, hparams=None, run_opts=None, checkpointer=None
    ):
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        # What this rank has trained on since the last log point, and what is validated.
        self.window = torch.zeros(len(SUMS), dtype=torch.double, device=self.device)
        self.valid_sums = torch.zeros_like(self.window)
        self.began = time.perf_counter()
        self.run_log = self.open_log()

    # ---- what a subclass calls -------------------------------------------------------------

    def observe(self, stage, *sums):
        """Adds the first four of ``SUMS`` of a micro-batch; nothing leaves the device here."""
        # A loss that is not finite leaves its step out, and would spoil the sum of the others.
        finite = torch.isfinite(sums[0])
        sums = torch.stack([torch.where(finite, value, 0).double() for value in sums])
        (self.window if stage == Stage.TRAIN else self.valid_sums)[: len(sums)] += sums.detach()

    def count_errors(self, ids, texts, references):
        """Adds what was written and what should have been, both as lists of texts."""
        words, expected = [text.split() for text in texts], [text.split() for text in references]
        self.wer_stats.append(ids, words, expected)
        self.cer_stats.append(ids, words, expected)

    # ---- training --------------------------------------------------------------------------

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Logs at each ``log_interval`` of optimiser steps."""
        now = time.perf_counter()
        self.window[SUMS.index("seconds")] += now - self.began
        self.began = now
        if should_step and self.optimizer_step % self.hparams.log_interval == 0:
            self.log_interval()

    def test(self, name, loader):
        """Reads audio with the best checkpoint, and writes ``wer_<name>.txt``.

        Arguments
        ---------
        name : str
            Of the test.
        loader : torch.utils.data.DataLoader
            The same batches on every rank.

        Returns
        -------
        word_error_rate : float
            In per cent.

        Raises
        ------
        RunError
            Where a clip cannot be read: the error rate would be that of the others.
        """
        self.test_name = name
        self.evaluate(loader, min_key="WER")
        return self.wer_stats.summarize("error_rate")

    def evaluate_batch(self, batch, stage):
        """As in SpeechBrain; a test has no clip left out."""
        if stage == Stage.TEST and batch.left_out:
            clip, reason = batch.left_out[0]
            raise RunError(
                f"clip {clip!r} of the test {self.test_name} cannot be used: {reason}; mend it, "
                f"or take it out of the manifest"
            )
        return super().evaluate_batch(batch, stage)

    # ---- what a checkpoint holds -----------------------------------------------------------

    def rank_state(self):
        """What this rank has seen since the last log point."""
        return {"window": self.window.cpu()}

    def load_run_state(self, state, same_epoch):
        """Takes up what ``run_state`` gave."""
        super().load_run_state(state, same_epoch)
        windows = [of_rank["window"] for of_rank in state["rank_states"]]
        # With another number of ranks, the first of them goes on from what all had seen.
        if len(windows) != world_size():
            total = sum(windows)
            windows = [total if number == 0 else 0 * total for number in range(world_size())]
        self.window.copy_(windows[rank()])

    # ---- logging ---------------------------------------------------------------------------

    def on_stage_start(self, stage, epoch=None):
        """Starts the sums of a validation or a test."""
        self.began = time.perf_counter()
        if stage != Stage.TRAIN:
            self.valid_sums.zero_()
            self.wer_stats, self.cer_stats = ErrorRateStats(), ErrorRateStats(split_tokens=True)

    def log_interval(self):
        """Logs the steps since the last log point; every rank calls it."""
        self.read_steps()
        window = ddp_all_reduce(self.window.clone(), torch.distributed.ReduceOp.SUM)
        self.window.zero_()
        sums = dict(zip(SUMS, window.tolist()))
        if sums["clips_too_short"]:
            self.check_targets("training", sums)
        seconds = sums["seconds"] / world_size()
        self.run_log.write({
            **self.place("train"),
            **loss_of(sums),
            "lr": self.learning_rate,
            "grad_norm": self.grad_norm,
            "speech_per_second": sums["samples"] / self.hparams.sample_rate / seconds,
        })  # fmt: skip

    def check_targets(self, where, sums):
        """Raises a RunError where no clip had a transcript that its frames can write."""
        if not sums["characters"]:
            raise RunError(
                f"no target was seen in {where} up to step {self.optimizer_step}: "
                f"{sums['clips_too_short']:g} clips have more characters than frames, the others "
                f"cannot be read or have no transcript; check the columns wrd and wav"
            )

    def place(self, stage):
        """Where the run is, for a log point."""
        epoch = self.hparams.epoch_counter.current
        return {"step": self.optimizer_step, "epoch": epoch, "stage": stage}

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs a validation or a test, and saves after the former."""
        if stage == Stage.TRAIN:
            self.read_steps()
            return
        # Every rank has read the same batches: there is nothing to add up.
        sums = dict(zip(SUMS, self.valid_sums.tolist()))
        self.check_targets("a test" if stage == Stage.TEST else "validation", sums)
        record = {
            **self.place(stage.name.lower()),
            **loss_of(sums),
            "cer": self.cer_stats.summarize("error_rate"),
            "wer": self.wer_stats.summarize("error_rate"),
        }
        if stage == Stage.TEST:
            self.run_log.write({**record, "test": self.test_name})
            on_main_process(self.write_alignments)
            return
        self.run_log.write(record)
        if self.checkpointer is not None:
            self.save({"WER": record["wer"], "epoch": epoch}, min_keys=["WER"])

    def write_alignments(self):
        """Writes the errors of a test, word by word, in SpeechBrain's form."""
        path = os.path.join(self.run_log.folder, f"wer_{self.test_name}.txt")
        with open_own(path, "w") as file:
            self.wer_stats.write_stats(file)
        logger.info(f"{self.test_name}: WER {self.wer_stats.summary['WER']:.2f}%, see {path}")


def loss_of(sums):
    """What a log point says of the loss.

    Example
    -------
    >>> loss_of({"loss": 6.0, "characters": 4.0, "clips_too_short": 1.0})
    {'loss': 1.5, 'clips_too_short': 1}
    """
    loss = sums["loss"] / max(sums["characters"], 1)
    return {"loss": loss, "clips_too_short": int(sums["clips_too_short"])}
