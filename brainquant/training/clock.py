"""How long a run has trained."""

import math
import time
from collections.abc import Mapping


class Clock:
    """Counts the seconds of a run, without the pauses in which no process ran.

    The seconds include validations and checkpoints. Work that a killed process had not saved does
    not count: the run repeats it.

    Attributes
    ----------
    before : float
        Seconds up to the checkpoint that the run went on from.

    Example
    -------
    >>> clock = Clock()
    >>> clock.seconds()
    0.0
    >>> clock.load_state_dict({"seconds": 60.0})
    >>> clock.start()
    >>> 60 < clock.seconds() < 61
    True
    """

    without_state: dict = {}  # checkpoints of earlier versions lack this part

    def __init__(self) -> None:
        self.before = 0.0
        self._started: float | None = None

    def start(self) -> None:
        """Goes on counting."""
        self._started = time.perf_counter()

    def seconds(self) -> float:
        """Seconds of the run so far."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self.before + running

    def state_dict(self) -> dict:
        """The seconds, for a checkpoint."""
        return {"seconds": self.seconds()}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Takes the seconds of ``state_dict``; a ValueError if they are none."""
        seconds = state.get("seconds", 0.0)
        if not isinstance(seconds, float) or not 0 <= seconds < math.inf:
            raise ValueError(f"seconds of the clock is {seconds!r}, not a time")
        self.before = seconds
