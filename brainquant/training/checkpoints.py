"""Checkpoints that survive a kill at any moment, a full disk, a flipped bit and a wrong clock."""

import logging
import math
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from speechbrain.utils.checkpoints import Checkpoint, ckpt_recency
from speechbrain.utils.logger import get_logger
from typing_extensions import override

from ..errors import RunError
from ..ranks import gather_over_ranks, on_main_process
from .checkpoint_choice import ImportanceKey, Predicate, WholeCheckpoints
from .checkpoint_contents import Damaged, load_states
from .checkpoint_folder import (
    UNFINISHED,
    check_meta,
    publish,
    remove_leftovers,
    size,
    what_is_wrong,
    write_manifest,
)
from .checkpoint_space import is_no_space, no_space_text

logger = get_logger(__name__)


class Checkpointer(WholeCheckpoints):
    """SpeechBrain's Checkpointer, but each of its checkpoints is whole or not there.

    A save writes the checkpoint into a folder of another name, with the sums of its files. It
    flushes the folder to the disk and then renames it. (SpeechBrain 1.1.2 writes in place and
    starts with ``CKPT.yaml``: if a run is killed while it saves, it cannot resume until somebody
    removes the folder.) A checkpoint that does not match its sums is never loaded.

    The main process does all of this, and the other ranks wait for its result. So every rank has
    to call these methods, and all ranks have to see the same folder. Save hooks that SpeechBrain
    calls on every rank are called on the main process only.

    Arguments
    ---------
    checkpoints_dir : str or pathlib.Path
        Folder of the checkpoints, for one run at a time.
    recoverables, custom_load_hooks, custom_save_hooks, allow_partial_load
        As for ``speechbrain.utils.checkpoints.Checkpointer``.

    Attributes
    ----------
    save_failed : str or None
        Why the last save found no space; None if it succeeded.

    Example
    -------
    >>> from speechbrain.utils.epoch_loop import EpochCounter
    >>> counter, folder = EpochCounter(9), getfixture("tmpdir")
    >>> checkpointer = Checkpointer(folder, {"counter": counter})
    >>> for counter.current in range(3):
    ...     checkpoint = checkpointer.save_and_keep_only(num_to_keep=2)
    >>> _ = (checkpoint.path / "counter.ckpt").write_text("9")  # as a failing disk might
    >>> checkpoint = checkpointer.recover_if_possible()
    >>> counter.current
    1
    """

    save_failed: str | None = None

    @override
    def save_checkpoint(
        self,
        meta: Mapping[str, Any] | None = None,
        end_of_epoch: bool = True,
        name: str | None = None,
        verbosity: int = logging.INFO,
    ) -> Checkpoint | None:
        """Saves a checkpoint; without space for one, logs a warning and returns None.

        Training can go on after that: the earlier checkpoints are unchanged.

        Arguments
        ---------
        meta : dict
            Plain numbers and texts for ``CKPT.yaml``.
        end_of_epoch : bool
            Whether an epoch ends here.
        name : str or None
            Replaces the date in the name of the folder.
        verbosity : int
            The level of the log line.

        Returns
        -------
        checkpoint : speechbrain.utils.checkpoints.Checkpoint or None
            The same on every rank.
        """
        checkpoint, self.save_failed = on_main_process(
            lambda: self._save_or_explain(meta or {}, end_of_epoch, name, verbosity)
        )
        return checkpoint

    @override
    def save_and_keep_only(  # pyright: ignore[reportIncompatibleMethodOverride]  (stock's gives None)
        self,
        meta: Mapping[str, Any] | None = None,
        end_of_epoch: bool = True,
        name: str | None = None,
        num_to_keep: int = 1,
        keep_recent: bool = True,
        importance_keys: Iterable[ImportanceKey] = (),
        max_keys: Iterable[str] = (),
        min_keys: Iterable[str] = (),
        ckpt_predicate: Predicate | None = None,
        verbosity: int = logging.INFO,
    ) -> Checkpoint | None:
        """Saves a checkpoint, then deletes the least important ones, as SpeechBrain does.

        The arguments are those of ``save_checkpoint`` and ``delete_checkpoints``.
        ``keep_recent`` adds recency to the importance keys.

        Returns
        -------
        checkpoint : speechbrain.utils.checkpoints.Checkpoint or None
            As for ``save_checkpoint``. If it is None, nothing was deleted.
        """
        checkpoint = self.save_checkpoint(meta, end_of_epoch, name, verbosity)
        if checkpoint is not None:
            # SpeechBrain 1.1.2 appends to the list that is its default argument. So each call
            # sorts by recency once more than the call before, and saves become slower.
            recency = [ckpt_recency] if keep_recent else []
            self.delete_checkpoints(
                num_to_keep=num_to_keep,
                min_keys=min_keys,
                max_keys=max_keys,
                importance_keys=[*importance_keys, *recency],
                ckpt_predicate=ckpt_predicate,
                verbosity=verbosity,
            )
        return checkpoint

    @override
    def recover_if_possible(
        self,
        importance_key: ImportanceKey | None = None,
        max_key: str | None = None,
        min_key: str | None = None,
        ckpt_predicate: Predicate | None = None,
    ) -> Checkpoint | None:
        """Loads the best whole checkpoint, and sets damaged ones aside.

        The arguments say which one is best, as for ``find_checkpoints``: by default, the most
        recent one.

        Returns
        -------
        checkpoint : speechbrain.utils.checkpoints.Checkpoint or None
            The same on every rank; None if there is no checkpoint to choose from.

        Raises
        ------
        RunError
            If there are checkpoints, but all are damaged, now or at an earlier start.
        """
        best = importance_key, max_key, min_key, ckpt_predicate
        damaged = None
        while True:
            checkpoint = on_main_process(partial(self._choose_whole, best, damaged))
            if checkpoint is None:
                logger.info(f"No checkpoint in {self.checkpoints_dir} yet")
                return None
            # Its sums are right, but its content can still be wrong. In that case the next
            # checkpoint replaces the part that was loaded.
            reasons = gather_over_ranks(self._load(checkpoint))
            reason = next((reason for reason in reasons if reason), None)
            if reason is None:
                return checkpoint
            damaged = checkpoint.path, reason

    @override
    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Loads a checkpoint; raises a RunError if it is damaged."""
        if wrong := what_is_wrong(checkpoint.path) or self._load(checkpoint):
            raise RunError(f"{checkpoint.path} is damaged ({wrong}): load another checkpoint")

    def _load(self, checkpoint):
        """Loads a checkpoint whose sums are right; returns what is wrong with it, or None."""
        logger.info(f"Loading a checkpoint from {checkpoint.path}")
        try:
            load_states(
                self.recoverables,
                checkpoint,
                hooks=self.custom_load_hooks,
                is_optional=lambda name: (
                    self.allow_partial_load or self.optional_recoverables.get(name, False)
                ),
            )
        except Damaged as damage:
            return str(damage)
        return None

    # ---- on the main process only ----------------------------------------------------------

    def _save_or_explain(self, *arguments):
        """Returns a checkpoint and None; or None and why there is no space for one."""
        remove_leftovers(self.checkpoints_dir)
        try:
            return self._save(*arguments), None
        except (OSError, RuntimeError) as error:
            if not is_no_space(error):
                raise
            written = sum(map(size, self.checkpoints_dir.glob(f"{UNFINISHED}*")))
            remove_leftovers(self.checkpoints_dir)
            paths = (checkpoint.path for checkpoint in self.find_checkpoints())
            last = next((path for path in paths if not what_is_wrong(path)), None)
            failure = no_space_text(error, self.checkpoints_dir, written=written, last=last)
            logger.warning(f"{failure}. Training goes on")
            return None, failure

    def _save(self, meta, end_of_epoch, name, verbosity):
        check_meta(meta)
        # The new checkpoint is the most recent one even if the clock was set back.
        newest = max(map(ckpt_recency, self.list_checkpoints()), default=0.0)
        now = max(time.time(), math.nextafter(newest, math.inf))
        saved = super().save_checkpoint(
            {"unixtime": now, **meta}, end_of_epoch, name, logging.DEBUG
        )
        assert saved is not None  # SpeechBrain gives None on other ranks only
        unfinished, meta, files = saved
        write_manifest(unfinished)
        path = unfinished.with_name(unfinished.name.removeprefix(UNFINISHED))
        publish(unfinished, path, spare=super()._new_checkpoint_dirpath())
        kind = "end-of-epoch" if end_of_epoch else "intra-epoch"
        logger.log(verbosity, f"Saved an {kind} checkpoint in {path}")
        return Checkpoint(path, meta, {key: path / file.name for key, file in files.items()})

    @override
    def _new_checkpoint_dirpath(self) -> Path:
        path = super()._new_checkpoint_dirpath()
        return path.with_name(UNFINISHED + path.name)

    @override
    def _custom_checkpoint_dirpath(self, name: str) -> Path:
        path = super()._custom_checkpoint_dirpath(name)
        return path.with_name(UNFINISHED + path.name)
