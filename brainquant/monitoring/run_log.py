"""The log of a run: one JSON line per log point, SpeechBrain's loggers, and the report."""

import functools
import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from speechbrain.utils import train_logger as speechbrain_loggers
from speechbrain.utils.distributed import main_process_only
from speechbrain.utils.logger import get_logger

from ..own_files import NO_SPACE, open_own, refuse_link
from ..ranks import on_main_process
from .health import START_LOSS, health_warnings
from .live_report import LiveReport

logger = get_logger(__name__)


class RunLog:
    """Writes the log files of a run and feeds SpeechBrain's loggers.

    ``metrics.jsonl`` has the log points, ``left_out.jsonl`` the clips and steps that training left
    out; ``report.html`` and ``report.png`` are drawn from ``metrics.jsonl``. A full disk does not
    end the run: a line that does not fit is dropped whole, with one warning per file. Every rank
    has to call the methods, except ``state_dict`` and ``load_state_dict``.

    A checkpoint holds the sizes of the files. A run that resumes loads them, and ``start`` then
    drops what was logged after that checkpoint.

    Arguments
    ---------
    folder : str
        Where the files go.
    train_loggers : list of speechbrain.utils.train_logger.TrainLogger
        Get the same numbers, except lists and texts.
    codebook_size : int or None
        Codes of each codebook. None: no codes are watched, and no warning is given.
    warmup_steps : int
        After twice as many steps the loss has to be below its reference.
    title : str
        Name of the run in its report.

    Example
    -------
    >>> log = RunLog(str(getfixture("tmpdir")), [], codebook_size=320, warmup_steps=100)
    >>> record = {"stage": "train", "loss": 3.0, "accuracy": 0.1, "code_perplexity": [90.0]}
    >>> log.write({"step": 10, **record})
    >>> in_checkpoint = log.state_dict()
    >>> log.write({"step": 20, **record})
    >>> log.load_state_dict(in_checkpoint)
    >>> log.start(10)
    >>> [json.loads(line)["step"] for line in open(log.metrics_file)]
    [10]
    """

    def __init__(
        self,
        folder: str,
        train_loggers: Iterable[speechbrain_loggers.TrainLogger],
        *,
        codebook_size: int | None = None,
        warmup_steps: int = 0,
        title: str = "",
    ):
        self.folder = folder
        self.train_loggers = list(train_loggers)
        self.codebook_size = codebook_size
        self.warmup_steps = warmup_steps
        self.warned: set[str] = set()
        self.loaded: Mapping[str, int] | None = None  # file sizes in the checkpoint
        self.metrics_file = os.path.join(folder, "metrics.jsonl")
        self.left_out_file = os.path.join(folder, "left_out.jsonl")
        self.report = LiveReport(folder, self.metrics_file, title, warmup_steps)
        for train_logger in self.train_loggers:
            if type(train_logger) is speechbrain_loggers.TensorboardLogger:
                logger.warning(
                    "train_loggers: SpeechBrain's TensorboardLogger (1.1.2) doubles steps after a "
                    "resume; use !new:brainquant.monitoring.tensorboard.TensorboardLogger instead"
                )

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes one log point everywhere. Warns if it looks wrong, once per kind of fault.

        Arguments
        ---------
        record : dict
            ``step``, ``stage``, ``loss`` and other numbers; ``accuracy`` and ``code_perplexity``
            if codes are watched.
        """
        if self.codebook_size is not None:
            found = health_warnings(record, self.codebook_size, self.warmup_steps)
            for name, warning in found.items():
                if name not in self.warned:
                    logger.warning(f"{warning.finding}. {warning.advice}")
                    self.warned.add(name)
        # JSON has neither NaN nor Inf.
        record = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }
        # Loggers have one curve per name; the mean of an epoch is no point on that of intervals.
        is_mean = record["stage"] == "train" and record.get("span") == "epoch"
        prefix = "epoch_" if is_mean else ""
        # Not "epoch" as meta: SpeechBrain's W&B logger uses that as the step of its x axis.
        numbers = {
            name if name == "epoch" else prefix + name: value
            for name, value in record.items()
            if name != "step" and isinstance(value, (int, float))
        }
        on_main_process(lambda: self._write_everywhere(record, numbers))
        if record["stage"] != "train":
            logger.info(summary(record))

    def leave_out(self, record: Mapping[str, Any]) -> None:
        """Writes a clip or step that training left out into ``left_out.jsonl``.

        Arguments
        ---------
        record : dict
            ``step``, ``kind`` ("clip" or "step"), ``reason``, and the IDs.
        """
        on_main_process(lambda: self._append(self.left_out_file, record))

    # ---- on the main process ---------------------------------------------------------------

    def _write_everywhere(self, record, numbers):
        self._append(self.metrics_file, record)
        step = record["step"]
        for train_logger in self.train_loggers:
            # On the main process only: there SpeechBrain's log_stats waits for no other rank.
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
        """Calls a function that writes; warns once if there is no space."""
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
                    f"in your quota. The run continues"
                )
                self.warned.add(name)

    def _files(self):
        """The files that only grow, by their paths relative to the folder."""
        loggers = (getattr(train_logger, "save_file", None) for train_logger in self.train_loggers)
        paths = [self.metrics_file, self.left_out_file, *filter(None, loggers)]
        return {os.path.relpath(path, self.folder): path for path in paths}

    # ---- checkpoints -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, int]:
        """The size of each file in bytes, by its path relative to the folder; no collective."""
        return {name: _size(path) for name, path in self._files().items()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Takes the sizes from a checkpoint; ``start`` cuts the files back to them."""
        self.loaded = dict(state)

    def start(self, step: int) -> None:
        """Begins a run, or continues the one whose state was loaded; all ranks call it.

        Drops what was logged after the checkpoint. Without a checkpoint it empties all files of
        the folder: they belong to another run.

        Arguments
        ---------
        step : int
            Optimiser steps in the checkpoint, 0 without one.
        """
        self.report.start()
        sizes, self.loaded = self.loaded, None
        self._rewind_files(sizes)
        for train_logger in self.train_loggers:
            folder = getattr(train_logger, "save_dir", self.folder)
            rewind = getattr(train_logger, "rewind", None)
            if rewind is not None and (sizes or self._is_inside(folder)):
                rewind(step)

    @main_process_only
    def _rewind_files(self, sizes):
        for name, path in self._files().items():
            refuse_link(path)
            if sizes:
                self._cut(path, sizes.get(name))
            elif os.path.exists(path) and self._is_inside(path):
                os.truncate(path, 0)

    def _is_inside(self, path):
        """Whether a path is in the folder: a --debug run may not change files of the real run."""
        return not os.path.relpath(path, self.folder).startswith(os.pardir)

    def _cut(self, path, size):
        """Cuts a file back to a size; if it is shorter, to its last whole line."""
        if size is None:  # the logger is new to the run
            return
        present = _size(path)
        if present < size:
            logger.warning(
                f"{path} has {present} bytes, but had {size} when the checkpoint was saved: the "
                f"last lines before the checkpoint are lost; the run continues"
            )
        if present:
            with open(path, "rb+") as file:
                whole = file.read(size).rfind(b"\n") + 1
                file.truncate(whole)

    # ---- the report ------------------------------------------------------------------------

    @main_process_only
    def renew_report(self, code_counts: np.ndarray | None) -> None:
        """Draws the report of a run that goes on, where there is time; see ``LiveReport``."""
        self.report.renew(code_counts)

    def draw_report(self, code_counts: np.ndarray | None) -> None:
        """Draws the report from the log points and the code counts of the whole run."""
        on_main_process(lambda: self.report.draw_last(code_counts))

    def has_report(self) -> bool:
        """Whether there is the report of a finished run; the same answer on all ranks."""
        return bool(on_main_process(self.report.is_final))


def _size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def summary(record: Mapping[str, Any]) -> str:
    """One line of the terminal for a log point.

    Example
    -------
    >>> record = {"step": 900, "stage": "valid", "loss": 4.2, "accuracy": 0.21, "epoch": 3}
    >>> summary({**record, "unigram_loss": 5.1, "code_perplexity_sum": 126.0})
    'step 900, valid: loss 4.200 (reference 5.100), accuracy 21.0%, perplexity 126'
    >>> summary({**record, "start_loss": 4.517, "unigram_loss": 5.1}).split(", accuracy")[0]
    'step 900, valid: loss 4.200 (as it came 4.517, reference 5.100)'
    >>> quality = {"mean_effective_rank": 57.31, "mean_units_repeat": 0.318}
    >>> summary({**record, **quality}).split(", accuracy")[1]
    ' 21.0%, perplexity nan, rank 57.3, units repeat 0.32'
    >>> summary({"step": 900, "stage": "valid", "loss": 0.2, "cer": 5.25, "wer": 18.125})
    'step 900, valid: loss 0.200, CER 5.25%, WER 18.12%'
    """
    where = f"step {record['step']}, {record['stage']}"
    if "wer" in record:
        numbers = (math.nan if record[n] is None else record[n] for n in ("loss", "cer", "wer"))
        return "{}: loss {:.3f}, CER {:.2f}%, WER {:.2f}%".format(where, *numbers)
    reference = record.get("unigram_loss", record.get("chance_loss"))
    numbers = [record["loss"], reference, record["accuracy"], record.get("code_perplexity_sum")]
    loss, reference, accuracy, perplexity = (
        float("nan") if number is None else number for number in numbers
    )
    # The quality of the layers, where it was measured.
    names = {"mean_effective_rank": "rank {:.3g}", "mean_units_repeat": "units repeat {:.2f}"}
    more = [text.format(record[n]) for n, text in names.items() if record.get(n) is not None]
    came = f"as it came {record[START_LOSS]:.3f}, " if record.get(START_LOSS) is not None else ""
    return (
        f"{where}: loss {loss:.3f} ({came}reference {reference:.3f}), "
        f"accuracy {accuracy:.1%}, perplexity {perplexity:.0f}{''.join(f', {x}' for x in more)}"
    )
