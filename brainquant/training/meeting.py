"""The meeting of the ranks after each step, which decides whether all of them stop or save."""

from typing import NoReturn

from speechbrain.utils.logger import get_logger

from ..processes.launcher import end_of_launcher, launcher_has_ended
from ..processes.signals import Stopped, StopSignals
from ..ranks import add_over_ranks, leave_group, rank
from .left_out import LeftOut
from .watchdog import Watchdog

logger = get_logger(__name__)


class Meeting:
    """Exchanges signals, due checkpoints and left-out clips over ranks; ends a stopped run.

    Arguments
    ---------
    left_out : LeftOut
        Exchanges the clips that only one rank knows to be left out.
    watchdog : Watchdog
        Gets a tick at each meeting.

    Attributes
    ----------
    signals : StopSignals
        A context in which a signal is noted and acted on at the next meeting.

    Example
    -------
    >>> from brainquant.monitoring.run_log import RunLog
    >>> left_out = LeftOut(RunLog(str(getfixture("tmpdir")), []), max_bad_audio=0.0)
    >>> Meeting(left_out, Watchdog(0)).meet(step=3, save_due=True)
    (False, True)
    """

    def __init__(self, left_out: LeftOut, watchdog: Watchdog) -> None:
        self.left_out = left_out
        self.watchdog = watchdog
        self.signals = StopSignals()

    def meet(self, step: int, save_due: bool = False) -> tuple[bool, bool]:
        """Every rank has to call this, after the same step.

        Arguments
        ---------
        step : int
            Number of the step.
        save_due : bool
            Whether a checkpoint is due by the clock of this rank. Only the clock of rank 0 counts.

        Returns
        -------
        stopping : bool
            Whether a rank has received a signal.
        save_due : bool
            Whether to save.
        """
        self.watchdog.tick("the meeting of the ranks")
        received = self.signals.received is not None
        stopping, due, new = add_over_ranks(
            received, save_due and rank() == 0, len(self.left_out.new)
        )
        if new:
            self.left_out.exchange(step)
        return stopping > 0, due > 0

    def end(self, step: int, what_is_saved: str) -> NoReturn:
        """Ends the program with the exit status of a signal; every rank has to call this.

        The log says after which step, and what is saved.
        """
        signal = cause = self.signals.received
        if launcher_has_ended():
            cause = end_of_launcher()
        cause = cause or "a signal to another rank"
        logger.warning(f"Stopped by {cause} after step {step}: {what_is_saved}")
        leave_group()
        raise Stopped(signal or "SIGTERM")
