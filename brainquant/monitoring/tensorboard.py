"""SpeechBrain's TensorBoard logger, with the steps of the run on the x axis."""

import os
import time

import speechbrain.utils.train_logger
from speechbrain.utils.distributed import main_process_only
from speechbrain.utils.logger import get_logger
from typing_extensions import override

logger = get_logger(__name__)


class TensorboardLogger(speechbrain.utils.train_logger.TensorboardLogger):
    """Logs under the number of the step, once each, whatever the run is interrupted by.

    SpeechBrain's, in 1.1.2, counts log points instead, and from 0 again after a resume.

    Arguments
    ---------
    save_dir : str
        Where the event files go.

    Raises
    ------
    ImportError
        Where TensorBoard is not installed.
    """

    def __init__(self, save_dir):
        super().__init__(save_dir)
        self.last_steps = {}  # by tag

    @main_process_only
    @override
    def log_stats(
        self, stats_meta, train_stats=None, valid_stats=None, test_stats=None, verbose=False
    ):
        """Writes numbers under tags such as ``loss/train``.

        Arguments
        ---------
        stats_meta : dict
            ``step``, and other numbers.
        train_stats, valid_stats, test_stats : dict or None
            Numbers.
        verbose : bool
            Has no effect, as with SpeechBrain's.
        """
        step = self.global_step["meta"] = stats_meta["step"]
        tags = dict(stats_meta)
        for stage, stats in (("train", train_stats), ("valid", valid_stats), ("test", test_stats)):
            tags.update({f"{name}/{stage}": value for name, value in (stats or {}).items()})
        for tag, value in tags.items():
            if self.last_steps.get(tag) != step:
                self.writer.add_scalar(tag, value, step)
                self.last_steps[tag] = step
        self.writer.flush()  # a kill may come at any time

    @main_process_only
    def rewind(self, step):
        """Lets TensorBoard forget what was logged after a step.

        Arguments
        ---------
        step : int
            Of the checkpoint that the run resumes from.
        """
        from torch.utils.tensorboard import SummaryWriter

        self.writer.close()
        self._wait_for_a_later_name()
        self.writer = SummaryWriter(self.save_dir, purge_step=step + 1)
        self.last_steps.clear()

    def _wait_for_a_later_name(self):
        """TensorBoard reads files in the order of their names, which begin with the second."""
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
