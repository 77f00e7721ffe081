"""The clips and steps that training leaves out: counted over ranks, written down, limited."""

import math
from collections.abc import Iterable

from speechbrain.utils.logger import get_logger

from ..errors import RunError
from ..monitoring.run_log import RunLog
from ..ranks import gather_over_ranks

logger = get_logger(__name__)


class LeftOut:
    """What a run has left out.

    Arguments
    ---------
    run_log : RunLog
        Writes ``left_out.jsonl``.
    max_bad_audio : float
        Share of the clips that may be left out.

    Attributes
    ----------
    clips : dict of str to str
        Reasons by the ID of each clip that was left out on any rank.
    new : dict of str to str
        Those of this rank that the other ranks do not know yet.
    num_clips : int
        Clips of the manifests.

    Example
    -------
    >>> left_out = LeftOut(RunLog(str(getfixture("tmpdir")), []), max_bad_audio=0.5)
    >>> left_out.num_clips = 2
    >>> left_out.note([("a", "a.wav: cannot be read")])
    >>> left_out.exchange(step=3)
    >>> left_out.clips
    {'a': 'a.wav: cannot be read'}
    """

    def __init__(self, run_log: RunLog, max_bad_audio: float) -> None:
        self.run_log = run_log
        self.max_bad_audio = max_bad_audio
        self.clips: dict[str, str] = {}
        self.new: dict[str, str] = {}
        self.num_clips = 0

    def note(self, clips: Iterable[tuple[str, str]]) -> None:
        """Remembers the clips that were left out of a batch, as pairs of ID and reason."""
        for clip, reason in clips:
            if clip not in self.clips:
                self.new[clip] = reason

    def exchange(self, step: int) -> None:
        """Tells all ranks of the new clips; every rank has to call this, after the same step.

        Raises
        ------
        RunError
            If more clips were left out than ``max_bad_audio`` allows.
        """
        for clips in gather_over_ranks(self.new):
            for clip, reason in clips.items():
                if clip not in self.clips:
                    self.clips[clip] = reason
                    self.run_log.leave_out(
                        {"kind": "clip", "step": step, "id": clip, "reason": reason}
                    )
                    logger.warning(f"clip {clip!r} left out: {reason}")
        self.new = {}
        if len(self.clips) > math.ceil(self.max_bad_audio * self.num_clips):
            clip, reason = next(reversed(self.clips.items()))
            raise RunError(
                f"{len(self.clips)} of {self.num_clips} clips cannot be used, more than "
                f"max_bad_audio: {self.max_bad_audio} allows; the last is {clip!r}: {reason}. All "
                f"are in left_out.jsonl: mend them, or take them out of the manifest"
            )

    def write_step(self, step: int, epoch: int, what: str, ids: list[list[str]]) -> None:
        """Writes down a step that was left out; every rank has to call this.

        Arguments
        ---------
        step, epoch : int
            Their numbers.
        what : str
            What was not finite.
        ids : list of list of str
            The clips of each of its batches.
        """
        self.run_log.leave_out(
            {"kind": "step", "step": step, "epoch": epoch, "reason": f"{what} is not finite",
             "ids": ids}
        )  # fmt: skip

    def state_dict(self) -> dict:
        """The clips, for a checkpoint."""
        return {"clips": self.clips}

    def load_state_dict(self, state: dict) -> None:
        """Takes the clips of ``state_dict``."""
        if not isinstance(state["clips"], dict):
            raise ValueError(f"clips left out are a {type(state['clips']).__name__}")
        self.clips = state["clips"]
