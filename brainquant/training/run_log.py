"""The log points of a run: one JSON line each, SpeechBrain's loggers, and the report."""

import json
import math
import os

from speechbrain.utils.distributed import if_main_process, main_process_only
from speechbrain.utils.logger import get_logger

from ..monitors import health_warnings
from ..plots import plot_report

logger = get_logger(__name__)


class RunLog:
    """Writes ``metrics.jsonl`` and ``report.png`` into a folder, and feeds SpeechBrain's loggers.

    Arguments
    ---------
    folder : str
        Where the files go.
    train_loggers : list of speechbrain.utils.train_logger.TrainLogger
        Get the same numbers, except lists and texts.
    codebook_size : int
        Codes of each codebook, to tell a collapse.
    warmup_steps : int
        After twice as many steps a loss should be better than its reference.

    Example
    -------
    >>> log = RunLog(str(getfixture("tmpdir")), [], codebook_size=320, warmup_steps=100)
    >>> record = {"stage": "train", "loss": 3.0, "accuracy": 0.1, "code_perplexity": [90.0]}
    >>> log.write({"step": 10, **record})
    >>> log.write({"step": 20, **record})
    >>> log.forget_after(10)
    >>> [json.loads(line)["step"] for line in open(log.metrics_file)]
    [10]
    """

    def __init__(self, folder, train_loggers, *, codebook_size, warmup_steps):
        self.folder = folder
        self.train_loggers = train_loggers
        self.codebook_size = codebook_size
        self.warmup_steps = warmup_steps
        self.warned = set()
        self.metrics_file = os.path.join(folder, "metrics.jsonl")

    def write(self, record):
        """Writes one log point everywhere, and warns, once, of what looks wrong in it.

        Every rank has to call it: SpeechBrain's ``log_stats`` ends in a broadcast, and calling it
        on the main process only, as its recipes do in 1.1.2, hangs the others.

        Arguments
        ---------
        record : dict
            ``step``, ``stage``, ``loss``, ``accuracy``, ``code_perplexity`` and other numbers.
        """
        # The mean of a training epoch holds steps of the warm-up long after it.
        current = record["stage"] != "train" or record.get("span") != "epoch"
        after_warmup = current and record["step"] >= 2 * self.warmup_steps
        warnings = health_warnings(record, self.codebook_size, after_warmup)
        for name in warnings.keys() - self.warned:
            logger.warning(warnings[name])
            self.warned.add(name)
        # JSON has no NaN: what no finite number is known of is null.
        record = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }
        if if_main_process():
            os.makedirs(self.folder, exist_ok=True)
            with open(self.metrics_file, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        # Not "epoch" as meta: SpeechBrain's W&B logger takes it for the step of its x axis.
        numbers = {
            name: value
            for name, value in record.items()
            if name != "step" and isinstance(value, (int, float))
        }
        for train_logger in self.train_loggers:
            stats = {f"{record['stage']}_stats": numbers}
            train_logger.log_stats({"step": record["step"]}, **stats, verbose=False)
        if record["stage"] != "train":
            logger.info(summary(record))

    @main_process_only
    def forget_after(self, step):
        """Drops what was logged after the checkpoint that a run resumes from.

        Arguments
        ---------
        step : int
            Optimiser steps in the checkpoint; 0 where there is none.
        """
        if not os.path.exists(self.metrics_file):
            return
        with open(self.metrics_file, encoding="utf-8") as file:
            lines = [line for line in file if line.endswith("\n")]
        kept = [line for line in lines if step > 0 and json.loads(line)["step"] <= step]
        with open(self.metrics_file + ".part", "w", encoding="utf-8") as file:
            file.writelines(kept)
        os.replace(self.metrics_file + ".part", self.metrics_file)

    @main_process_only
    def draw_report(self, code_counts, title):
        """Draws ``report.png`` from the log points and the codes of the whole run."""
        image = os.path.join(self.folder, "report.png")
        plot_report(self.metrics_file, code_counts, image, title=title)
        logger.info(f"Report: {image}")


def summary(record):
    """A log point in one line of a terminal.

    Example
    -------
    >>> record = {"step": 900, "stage": "valid", "loss": 4.2, "accuracy": 0.21, "epoch": 3}
    >>> summary({**record, "unigram_loss": 5.1, "code_perplexity_sum": 126.0})
    'step 900, valid: loss 4.200 (reference 5.100), accuracy 21.0%, perplexity 126'
    """
    reference = record.get("unigram_loss", record.get("chance_loss"))
    numbers = [record["loss"], reference, record["accuracy"], record.get("code_perplexity_sum")]
    loss, reference, accuracy, perplexity = (
        float("nan") if number is None else number for number in numbers
    )
    return (
        f"step {record['step']}, {record['stage']}: loss {loss:.3f} (reference {reference:.3f}), "
        f"accuracy {accuracy:.1%}, perplexity {perplexity:.0f}"
    )
