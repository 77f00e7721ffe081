"""What a fine-tuning logs: the loss per character and error rates."""

import os
import time

import torch
from speechbrain import Stage
from speechbrain.utils.logger import get_logger
from speechbrain.utils.metric_stats import ErrorRateStats

from ..errors import RunError
from ..own_files import open_own
from ..ranks import world_size
from .counts import Sums

logger = get_logger(__name__)


class ErrorTally:
    """Adds up the numbers of a fine-tuning, over micro-batches, ranks and interruptions.

    Arguments
    ---------
    sample_rate : int
        Samples of a second.
    device : str or torch.device
        Where the sums are kept.

    Attributes
    ----------
    best : tuple of str
        The key of a checkpoint's meta by which the best one is kept, and that of a log point.
    test_name : str or None
        Name of the test manifest that is read.

    Example
    -------
    >>> tally = ErrorTally(sample_rate=10)
    >>> tally.start(Stage.VALID)
    >>> tally.observe(Stage.VALID, loss=6.0, characters=4, samples=10, clips_too_short=1)
    >>> tally.count_errors(["a"], ["the cat"], ["the hat"])
    >>> record = tally.end(Stage.VALID, step=1)
    >>> record["loss"], record["clips_too_short"], record["wer"]
    (1.5, 1, 50.0)
    """

    best = ("WER", "wer")
    codebook_size = None  # no codes to watch

    def __init__(self, *, sample_rate: int, device: str | torch.device = "cpu") -> None:
        self.sample_rate = sample_rate
        # The sums of this rank since the last log point, and those of a validation or a test.
        self.window, self.validation = Sums(device=device), Sums(device=device)
        self.samples = 0.0  # of training speech, in the whole run and over all ranks
        self.last_read, self.is_training = time.perf_counter(), True
        self.test_name: str | None = None

    def start(self, stage: Stage) -> None:
        """Comes before the batches of an epoch, a validation or a test."""
        self.last_read, self.is_training = time.perf_counter(), stage == Stage.TRAIN
        if not self.is_training:
            self.validation.clear()
            self.wer, self.cer = ErrorRateStats(), ErrorRateStats(split_tokens=True)

    def observe(self, stage: Stage, **sums: float | torch.Tensor) -> None:
        """Adds a micro-batch; nothing leaves the device.

        Arguments
        ---------
        stage : Stage
            What the batch is for.
        **sums : torch.Tensor
            ``loss``, ``characters``, ``samples`` and ``clips_too_short``.
        """
        # A loss that is not finite leaves its step out, and would spoil the sum of the others.
        finite = torch.isfinite(torch.as_tensor(sums["loss"]))
        sums = {name: torch.where(finite, value, 0) for name, value in sums.items()}
        (self.window if stage == Stage.TRAIN else self.validation).add(**sums)

    def count_errors(self, ids: list[str], texts: list[str], references: list[str]) -> None:
        """Adds the decoded texts of clips and their transcripts."""
        words, expected = [text.split() for text in texts], [text.split() for text in references]
        self.wer.append(ids, words, expected)
        self.cer.append(ids, words, expected)

    def interval(self, step: int) -> dict:
        """The numbers since the last log point; every rank has to call this."""
        self._count_seconds()
        values = self.window.reduced().read()
        self.window.clear()
        self.samples += values.get("samples", 0.0)
        if values.get("clips_too_short"):
            check_targets("training", step, values)
        speech = values.get("samples", 0.0) / self.sample_rate
        return {
            **loss_of(values),
            "speech_per_second": speech / values["seconds"],
            "speech_seconds": self.samples / self.sample_rate,
        }

    def end(self, stage: Stage, step: int) -> dict | None:
        """The numbers of a validation or a test; None after an epoch, since intervals go on."""
        if stage == Stage.TRAIN:
            self._count_seconds()
            return None
        # Every rank has read all batches, so their sums are not added up.
        values = self.validation.read()
        check_targets("a test" if stage == Stage.TEST else "validation", step, values)
        record = {
            **loss_of(values),
            "cer": self.cer.summarize("error_rate"),
            "wer": self.wer.summarize("error_rate"),
        }
        return {**record, "test": self.test_name} if stage == Stage.TEST else record

    def write_errors(self, folder: str) -> None:
        """Writes the errors of a test, word by word, into ``wer_<test_name>.txt`` of a folder."""
        path = os.path.join(folder, f"wer_{self.test_name}.txt")
        with open_own(path, "w") as file:
            self.wer.write_stats(file)
        logger.info(f"{self.test_name}: WER {self.wer.summary['WER']:.2f}%, see {path}")

    def _count_seconds(self):
        if not self.is_training:  # a validation saves, too
            return
        now = time.perf_counter()
        self.window.add(seconds=(now - self.last_read) / world_size())
        self.last_read = now

    def code_counts(self) -> None:
        """None: there are no codes."""

    def state_dict(self) -> dict:
        """The sums, for a checkpoint; every rank has to call this."""
        self._count_seconds()
        return {"windows": self.window.state_of_ranks(), "samples": self.samples}

    def load_state_dict(self, state: dict) -> None:
        """Takes the sums of ``state_dict``."""
        self.window.load_state_of_ranks(state["windows"])
        self.samples = float(state.get("samples", 0.0))  # older checkpoints have none


def check_targets(where: str, step: int, values: dict[str, float]) -> None:
    """Raises a RunError if no clip had a transcript, or enough frames for it."""
    if not values.get("characters"):
        raise RunError(
            f"no target was seen in {where} up to step {step}: "
            f"{values.get('clips_too_short', 0):g} clips have more characters than frames, the "
            f"others cannot be read or have no transcript; check the columns wrd and wav"
        )


def loss_of(values: dict[str, float]) -> dict[str, float]:
    """The loss of a log point.

    Example
    -------
    >>> loss_of({"loss": 6.0, "characters": 4.0, "clips_too_short": 1.0})
    {'loss': 1.5, 'clips_too_short': 1}
    """
    loss = values.get("loss", 0.0) / max(values.get("characters", 0.0), 1)
    return {"loss": loss, "clips_too_short": int(values.get("clips_too_short", 0))}
