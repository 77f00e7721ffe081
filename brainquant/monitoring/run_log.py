"""The log of a run: one JSON line per log point, SpeechBrain's loggers, and the report."""

import functools
import json
import math
import os

from speechbrain.utils import train_logger as speechbrain_loggers
from speechbrain.utils.distributed import main_process_only
from speechbrain.utils.logger import get_logger

from ..own_files import NO_SPACE, open_own, refuse_link
from ..ranks import on_main_process
from .health import health_warnings
from .report import plot_report

logger = get_logger(__name__)


class RunLog:
    """Writes the log files of a run into a folder, and feeds SpeechBrain's loggers.

    ``metrics.jsonl`` has the log points, ``left_out.jsonl`` what was left out of training, and
    ``report.png`` is drawn from the former. What there is no space for is warned of once and left
    out, a line as a whole: a full disk ends no run. Every rank has to call the methods.

    Arguments
    ---------
    folder : str
        Where the files go.
    train_loggers : list of speechbrain.utils.train_logger.TrainLogger
        Get the same numbers, except lists and texts.
    codebook_size : int or None
        Codes of each codebook, to tell a collapse; None where there are none to watch.
    warmup_steps : int
        After twice as many steps a loss should be better than its reference.

    Example
    -------
    >>> log = RunLog(str(getfixture("tmpdir")), [], codebook_size=320, warmup_steps=100)
    >>> record = {"stage": "train", "loss": 3.0, "accuracy": 0.1, "code_perplexity": [90.0]}
    >>> log.write({"step": 10, **record})
    >>> in_checkpoint = log.positions()
    >>> log.write({"step": 20, **record})
    >>> log.rewind(in_checkpoint, 10)
    >>> [json.loads(line)["step"] for line in open(log.metrics_file)]
    [10]
    """

    def __init__(self, folder, train_loggers, *, codebook_size=None, warmup_steps=0):
        self.folder = folder
        self.train_loggers = train_loggers
        self.codebook_size = codebook_size
        self.warmup_steps = warmup_steps
        self.warned = set()
        self.metrics_file = os.path.join(folder, "metrics.jsonl")
        self.left_out_file = os.path.join(folder, "left_out.jsonl")
        self.report = os.path.join(folder, "report.png")
        for train_logger in train_loggers:
            if type(train_logger) is speechbrain_loggers.TensorboardLogger:
                logger.warning(
                    "train_loggers: SpeechBrain's TensorboardLogger (1.1.2) doubles steps after a "
                    "resume; say !new:brainquant.monitoring.tensorboard.TensorboardLogger instead"
                )

    def write(self, record):
        """Writes one log point everywhere, and warns, once, of what looks wrong in it.

        Arguments
        ---------
        record : dict
            ``step``, ``stage``, ``loss`` and other numbers; where codes are watched, ``accuracy``
            and ``code_perplexity``.
        """
        if self.codebook_size is not None:
            found = health_warnings(record, self.codebook_size, self.warmup_steps)
            for name in found.keys() - self.warned:
                logger.warning(f"{found[name].finding}. {found[name].advice}")
                self.warned.add(name)
        # JSON has no NaN: what no finite number is known of is null.
        record = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }
        # Loggers have one curve per name: the mean of an epoch is not a point on that of intervals.
        is_mean = record["stage"] == "train" and record.get("span") == "epoch"
        prefix = "epoch_" if is_mean else ""
        # Not "epoch" as meta: SpeechBrain's W&B logger takes it for the step of its x axis.
        numbers = {
            name if name == "epoch" else prefix + name: value
            for name, value in record.items()
            if name != "step" and isinstance(value, (int, float))
        }
        on_main_process(lambda: self._write_everywhere(record, numbers))
        if record["stage"] != "train":
            logger.info(summary(record))

    def leave_out(self, record):
        """Writes down what was left out of training, into ``left_out.jsonl``.

        Arguments
        ---------
        record : dict
            ``step``, ``kind``, which is "clip" or "step", ``reason``, and what tells which it was.
        """
        on_main_process(lambda: self._append(self.left_out_file, record))

    # ---- on the main process ---------------------------------------------------------------

    def _write_everywhere(self, record, numbers):
        self._append(self.metrics_file, record)
        step = record["step"]
        for train_logger in self.train_loggers:
            # Here it is called on the main process only, where SpeechBrain lets it wait for nobody.
            log = functools.partial(
                train_logger.log_stats,
                {"step": step},
                **{f"{record['stage']}_stats": numbers},
                verbose=False,
            )
            self._if_space(
                log,
                name=f"{type(train_logger).__name__} of train_loggers",
                path=getattr(train_logger, "save_file", None),
                lost=f"steps from {step} on",
            )

    def _append(self, path, record):
        def append():
            os.makedirs(self.folder, exist_ok=True)
            with open_own(path, "a") as file:
                file.write(json.dumps(record) + "\n")

        self._if_space(append, name=path, path=path, lost=f"lines from step {record['step']} on")

    def _if_space(self, call, *, name, lost, path=None):
        """Calls what writes; where there is no space for it, warns once."""
        size = 0
        if path:
            refuse_link(path)
            size = _size(path)
        try:
            call()
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            if path and _size(path) > size:
                os.truncate(path, size)  # half a line
            if name not in self.warned:
                logger.warning(
                    f"{name}: no space for {lost} ({error.strerror}); make space on that disk or "
                    f"in your quota. The run goes on"
                )
                self.warned.add(name)

    def _files(self):
        """Files that only ever grow, by their paths seen from the folder."""
        loggers = (getattr(train_logger, "save_file", None) for train_logger in self.train_loggers)
        paths = [self.metrics_file, self.left_out_file, *filter(None, loggers)]
        return {os.path.relpath(path, self.folder): path for path in paths}

    def positions(self):
        """How far each file is written, for a checkpoint; no collective.

        Returns
        -------
        positions : dict of str to int
            Bytes, by the file's path seen from the folder.
        """
        return {name: _size(path) for name, path in self._files().items()}

    def rewind(self, positions, step):
        """Drops what was logged after the checkpoint that a run resumes from; all ranks call it.

        Arguments
        ---------
        positions : dict or None
            What ``positions`` gave when it was saved. Without a checkpoint all files of the
            folder are emptied: they are those of another run.
        step : int
            Optimiser steps in the checkpoint.
        """
        self._rewind_files(positions)
        for train_logger in self.train_loggers:
            place = getattr(train_logger, "save_dir", self.folder)
            if hasattr(train_logger, "rewind") and (positions or self._is_inside(place)):
                train_logger.rewind(step)

    @main_process_only
    def _rewind_files(self, positions):
        for name, path in self._files().items():
            refuse_link(path)
            if positions:
                self._cut(path, positions.get(name))
            elif os.path.exists(path) and self._is_inside(path):
                os.truncate(path, 0)

    def _is_inside(self, path):
        """A trial with --debug has a folder in that of the real run, and may touch no other."""
        return not os.path.relpath(path, self.folder).startswith(os.pardir)

    def _cut(self, path, size):
        """Cuts a file back to a size, or to its last whole line where it is shorter."""
        if size is None:  # of a logger that is new to the run
            return
        present = _size(path)
        if present < size:
            logger.warning(
                f"{path} has {present} bytes, and had {size} when the checkpoint was saved: the "
                f"run goes on, but the last lines before its checkpoint are lost"
            )
        if present:
            with open(path, "rb+") as file:
                whole = file.read(size).rfind(b"\n") + 1
                file.truncate(whole)

    def draw_report(self, code_counts, title):
        """Draws ``report.png`` from the log points and the codes of the whole run."""

        def draw():
            plot_report(self.metrics_file, code_counts, self.report, title, self.warmup_steps)
            logger.info(f"Report: {self.report}")

        on_main_process(lambda: self._if_space(draw, name=self.report, lost="the report"))

    def has_report(self):
        """Whether there is a ``report.png``; the same on all ranks."""
        return on_main_process(lambda: os.path.exists(self.report))


def _size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def summary(record):
    """A log point in one line of a terminal.

    Example
    -------
    >>> record = {"step": 900, "stage": "valid", "loss": 4.2, "accuracy": 0.21, "epoch": 3}
    >>> summary({**record, "unigram_loss": 5.1, "code_perplexity_sum": 126.0})
    'step 900, valid: loss 4.200 (reference 5.100), accuracy 21.0%, perplexity 126'
    >>> summary({"step": 900, "stage": "valid", "loss": 0.2, "cer": 5.25, "wer": 18.125})
    'step 900, valid: loss 0.200, CER 5.25%, WER 18.12%'
    """
    place = f"step {record['step']}, {record['stage']}"
    if "wer" in record:
        numbers = (math.nan if record[n] is None else record[n] for n in ("loss", "cer", "wer"))
        return "{}: loss {:.3f}, CER {:.2f}%, WER {:.2f}%".format(place, *numbers)
    reference = record.get("unigram_loss", record.get("chance_loss"))
    numbers = [record["loss"], reference, record["accuracy"], record.get("code_perplexity_sum")]
    loss, reference, accuracy, perplexity = (
        float("nan") if number is None else number for number in numbers
    )
    return (
        f"{place}: loss {loss:.3f} (reference {reference:.3f}), "
        f"accuracy {accuracy:.1%}, perplexity {perplexity:.0f}"
    )
