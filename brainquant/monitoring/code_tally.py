"""What a pretraining logs: loss, accuracy and codes, over micro-batches and ranks."""

import time
from collections.abc import Callable

import numpy as np
import torch
from speechbrain import Stage

from ..errors import RunError
from ..ranks import world_size
from .counts import CodeMonitor, Sums, code_statistics

# Numbers of one objective, from the sums of a log point and from its counts of codes.
Describe = Callable[[dict[str, float], torch.Tensor], dict[str, float]]


class CodeTally:
    """Adds up the numbers of a pretraining, over micro-batches, ranks and interruptions.

    ``window`` has the sums of this rank since the ranks last added up. The sums of the interval,
    the epoch and the run are those of all ranks. Nothing leaves the device before a log point.

    Arguments
    ---------
    num_codebooks, codebook_size : int
        Of the quantiser.
    sample_rate : int
        Samples of a second.
    describe : callable
        Gives the numbers that belong to one objective.
    device : str or torch.device
        Where the sums are kept.

    Attributes
    ----------
    run : CodeMonitor
        The training codes of the whole run: the unigram that predictions have to beat.
    best : tuple of str
        The key of a checkpoint's meta by which the best one is kept, and that of a log point.

    Example
    -------
    >>> tally = CodeTally(1, 4, sample_rate=10, describe=lambda values, counts: {})
    >>> tally.start(Stage.TRAIN)
    >>> sums = {"loss": 3.0, "correct": 1, "targets": 2, "masked": 2, "valid": 8, "samples": 10}
    >>> tally.observe(Stage.TRAIN, torch.tensor([[0], [3]]), **sums)
    >>> record = tally.interval(step=1)
    >>> record["loss"], record["accuracy"], record["code_perplexity"], record["masked_ratio"]
    (1.5, 0.5, [2.0], 0.25)
    """

    best = ("valid_loss", "loss")

    def __init__(
        self,
        num_codebooks: int,
        codebook_size: int,
        *,
        sample_rate: int,
        describe: Describe,
        device: str | torch.device = "cpu",
    ) -> None:
        self.codebook_size = codebook_size
        self.sample_rate = sample_rate
        self.describe = describe
        self.window, self._interval, self.epoch, self.validation = (
            Sums(num_codebooks, codebook_size, device) for _ in range(4)
        )
        self.run = CodeMonitor(num_codebooks, codebook_size).to(device)
        self.samples = 0.0  # of training speech, in the whole run and over all ranks
        self.last_read, self.is_training = time.perf_counter(), True

    def start(self, stage: Stage) -> None:
        """Comes before the batches of an epoch, or of a validation that may interrupt one."""
        if stage != Stage.TRAIN:
            self._count_seconds()
        self.last_read, self.is_training = time.perf_counter(), stage == Stage.TRAIN
        if not self.is_training:
            self.validation.clear()

    def observe(
        self,
        stage: Stage,
        codes_NG: torch.Tensor,
        *,
        empty: bool = False,
        **sums: float | torch.Tensor,
    ) -> None:
        """Adds a micro-batch; nothing leaves the device.

        Arguments
        ---------
        stage : Stage
            Training or validation.
        codes_NG : torch.Tensor
            Codes of the valid masked frames, shape (frames, codebooks).
        empty : bool
            Whether the batch is a placeholder, whose silence counts for nothing.
        **sums : torch.Tensor
            ``loss``, ``correct`` and ``targets`` (the first two are shown divided by the third),
            ``masked`` and ``valid`` (frames), ``samples``, and others that ``describe`` reads.
        """
        # A value that is not finite would spoil the sums; its step is left out anyway.
        finite = torch.isfinite(torch.as_tensor(sum(sums.values()))) & (not empty)
        sums = {name: torch.where(finite, value, 0) for name, value in sums.items()}
        codes_NG = torch.where(finite, codes_NG, -1)
        (self.window if stage == Stage.TRAIN else self.validation).add(
            codes_NG, batches=finite, **sums
        )

    def interval(self, step: int) -> dict | None:
        """The numbers since the last log point, None without a batch; every rank calls this."""
        self._read_window()
        record = self._record(self._interval, "train", "interval", step)
        self._interval.clear()
        return record

    def end(self, stage: Stage, step: int) -> dict | None:
        """The numbers of an epoch or a validation, None without a batch; every rank calls this."""
        if stage == Stage.TRAIN:
            self._read_window()
            # None in a run that was stopped in the validation: it has logged its epoch already.
            record = self._record(self.epoch, "train", "epoch", step)
            self.epoch.clear()
            return record
        # Every rank has validated all batches, so their sums are not added up.
        self.validation.add(seconds=time.perf_counter() - self.last_read)
        return self._record(self.validation, stage.name.lower(), "epoch", step)

    def _read_window(self):
        """Adds the windows of all ranks to the interval, the epoch and the run."""
        self._count_seconds()
        window = self.window.reduced()
        self.window.clear()
        self._interval.merge(window)
        self.epoch.merge(window)
        self.run.counts += window.counts
        self.samples += window.read().get("samples", 0.0)

    def _count_seconds(self):
        if not self.is_training:  # a validation saves, too
            return
        now = time.perf_counter()
        self.window.add(seconds=(now - self.last_read) / world_size())
        self.last_read = now

    def _record(self, sums, stage, span, step):
        values = sums.read()
        if "batches" not in values:
            return None
        # An interval of a few short clips may have no masked span by chance.
        if not values["targets"] and (span == "epoch" or values["masked"]):
            raise RunError(no_targets(stage, step, values))
        targets = values["targets"] or float("nan")
        return {
            "span": span,
            "loss": values["loss"] / targets,
            "accuracy": values["correct"] / targets,
            **code_statistics(sums.counts),
            **self.describe(values, sums.counts),
            "masked_ratio": values["masked"] / max(values["valid"], 1),
            "speech_per_second": values["samples"] / self.sample_rate / values["seconds"],
            "speech_seconds": self.samples / self.sample_rate,
        }

    def code_counts(self) -> np.ndarray:
        """How often each code was a target so far, up to the last log point: (codebooks, codes)."""
        return self.run.counts.cpu().numpy()

    def state_dict(self) -> dict:
        """The sums, for a checkpoint; every rank has to call this."""
        self._count_seconds()
        return {
            "windows": self.window.state_of_ranks(),
            "interval": self._interval.state_dict(),
            "epoch": self.epoch.state_dict(),
            "run": self.run.counts.cpu(),
            "samples": self.samples,
        }

    def load_state_dict(self, state: dict) -> None:
        """Takes the sums of ``state_dict``."""
        self.window.load_state_of_ranks(state["windows"])
        self._interval.load_state_dict(state["interval"])
        self.epoch.load_state_dict(state["epoch"])
        self.run.counts.copy_(state["run"])
        self.samples = float(state.get("samples", 0.0))  # older checkpoints have none

    def forget_epoch(self) -> None:
        """Drops the sums of an epoch that begins again."""
        self.epoch.clear()


def no_targets(stage: str, step: int, values: dict[str, float]) -> str:
    """Why a run without targets ends: it would learn nothing.

    Example
    -------
    >>> no_targets("train", 9, {"batches": 1, "masked": 3, "valid": 99}).split(";")[0]
    'no target was seen in training up to step 9'
    """
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
    where = "training" if stage == "train" else "validation"
    return f"no target was seen in {where} up to step {step}; {reason}"
