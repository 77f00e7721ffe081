"""SpeechBrain's TensorBoard logger, with the steps of the run on the x axis."""

import os
import time
from collections.abc import Mapping
from typing import Any

import speechbrain.utils.train_logger
from speechbrain.utils.distributed import main_process_only
from speechbrain.utils.logger import get_logger
from typing_extensions import override

logger = get_logger(__name__)


class TensorboardLogger(speechbrain.utils.train_logger.TensorboardLogger):
    """Logs each step once, under its number, however often the run is interrupted.

    SpeechBrain's logger (1.1.2) counts log points instead, and starts at 0 again after a resume.

    Arguments
    ---------
    save_dir : str
        The folder of the event files.

    Raises
    ------
    ImportError
        If TensorBoard is not installed.
    """

    def __init__(self, save_dir: str):
        super().__init__(save_dir)
        self.last_steps: dict[str, int] = {}  # by tag

    @override
    @main_process_only
    @override
    def log_stats(
        self,
        stats_meta: Mapping[str, Any],
        train_stats: Mapping[str, Any] | None = None,
        valid_stats: Mapping[str, Any] | None = None,
        test_stats: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        """Writes numbers under tags such as ``loss/train``.

        Arguments
        ---------
        stats_meta : dict
            ``step``, and other numbers.
        train_stats, valid_stats, test_stats : dict or None
            Numbers.
        verbose : bool
            Has no effect, as in SpeechBrain.
        """
        step = self.global_step["meta"] = stats_meta["step"]
        tags = dict(stats_meta)
        for stage, stats in (("train", train_stats), ("valid", valid_stats), ("test", test_stats)):
            tags.update({f"{name}/{stage}": value for name, value in (stats or {}).items()})
        for tag, value in tags.items():
            if self.last_steps.get(tag) != step:
                self.writer.add_scalar(tag, value, step)
                self.last_steps[tag] = step
        self.writer.flush()  # the process may be killed at any time

    @main_process_only
    def rewind(self, step: int) -> None:
        """Makes TensorBoard drop everything logged after a step.

        Arguments
        ---------
        step : int
            Step of the checkpoint from which the run resumes.
        """
        from torch.utils.tensorboard import SummaryWriter

        self.writer.close()
        self._wait_for_a_later_name()
        self.writer = SummaryWriter(self.save_dir, purge_step=step + 1)
        self.last_steps.clear()

    def _wait_for_a_later_name(self):
        """Waits a second if need be: TensorBoard reads files by the time in their names."""
        begun = [
            int(name.split(".")[3])
            for name in os.listdir(self.save_dir)
            if name.startswith("events.out.tfevents.") and f".{os.getpid()}." not in name
        ]
        behind = max(begun, default=0) + 1 - time.time()
        if behind > 1:
            logger.warning(
                f"the clock is {behind:.0f} s behind the files in {self.save_dir}: TensorBoard "
                f"may show steps twice; metrics.jsonl does not"
            )
        elif behind > 0:
            time.sleep(behind)
