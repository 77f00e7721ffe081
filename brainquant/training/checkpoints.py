"""Checkpoints that survive a kill at any moment, a full disk, a flipped bit and a wrong clock."""

import logging
import math
import os
import shutil
import time
from functools import partial

from speechbrain.utils import checkpoints as sb_checkpoints
from speechbrain.utils.checkpoints import CKPT_PREFIX, Checkpoint, ckpt_recency
from speechbrain.utils.logger import get_logger

from ..errors import RunError
from ..own_files import NO_SPACE
from ..ranks import gather_over_ranks, on_main_process
from .checkpoint_contents import Damaged, is_number, load_states
from .checkpoint_folder import (
    DAMAGED,
    DELETED,
    UNFINISHED,
    check_meta,
    flush,
    meta_is_whole,
    remove,
    remove_tree,
    set_aside,
    size,
    what_is_wrong,
    write_manifest,
)

logger = get_logger(__name__)

# torch.save writes in C++, and of a write that fails it tells only where that was noticed.
TORCH_WRITER = ("PytorchStreamWriter", "inline_container", "iostream error")


class Checkpointer(sb_checkpoints.Checkpointer):
    """SpeechBrain's Checkpointer, whose checkpoints are whole or not there.

    A checkpoint is written beside its place, with the sums of its files, flushed to disk, and
    then renamed. (SpeechBrain 1.1.2 writes in place, ``CKPT.yaml`` first: a run that was killed
    while it saved cannot resume until the folder is removed by hand.) A checkpoint that does
    not match its sums is never loaded. The main process does all of that and the others wait for
    what comes of it, so all ranks have to call these methods, and the folder has to be one that
    all of them see. Savers that SpeechBrain would call on every rank are called on the first only.

    Arguments
    ---------
    checkpoints_dir : str or pathlib.Path
        Folder of the checkpoints; one run at a time.
    recoverables, custom_load_hooks, custom_save_hooks, allow_partial_load
        As for ``speechbrain.utils.checkpoints.Checkpointer``.

    Attributes
    ----------
    save_failed : str or None
        Why the last save failed for want of space; None where it did not.

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

    save_failed = None

    def save_checkpoint(self, meta=None, end_of_epoch=True, name=None, verbosity=logging.INFO):
        """Saves a checkpoint, or warns that there is no space for one.

        Arguments
        ---------
        meta : dict
            Goes into ``CKPT.yaml``: plain numbers and texts.
        end_of_epoch : bool
            Whether the checkpoint is at the end of an epoch.
        name : str or None
            Replaces the date in the name of the folder.
        verbosity : int
            Level at which the save is logged.

        Returns
        -------
        checkpoint : speechbrain.utils.checkpoints.Checkpoint or None
            The same on every rank; None where there was no space. Training can go on then: no
            other checkpoint has changed.
        """
        checkpoint, self.save_failed = on_main_process(
            lambda: self._save_or_explain(meta or {}, end_of_epoch, name, verbosity)
        )
        return checkpoint

    def save_and_keep_only(
        self,
        meta=None,
        end_of_epoch=True,
        name=None,
        num_to_keep=1,
        keep_recent=True,
        importance_keys=(),
        max_keys=(),
        min_keys=(),
        ckpt_predicate=None,
        verbosity=logging.INFO,
    ):
        """Saves a checkpoint, then deletes the least important ones, as SpeechBrain does.

        Arguments
        ---------
        meta, end_of_epoch, name, verbosity
            As for ``save_checkpoint``.
        num_to_keep, importance_keys, max_keys, min_keys, ckpt_predicate
            As for ``delete_checkpoints``.
        keep_recent : bool
            Whether recency is one of the importance keys.

        Returns
        -------
        checkpoint : speechbrain.utils.checkpoints.Checkpoint or None
            As ``save_checkpoint``; nothing was deleted where it is None.
        """
        checkpoint = self.save_checkpoint(meta, end_of_epoch, name, verbosity)
        if checkpoint is not None:
            # SpeechBrain 1.1.2 appends to the list that is its default argument: with each call
            # it sorts by recency once more, and saves take longer and longer.
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

    def delete_checkpoints(
        self,
        *,
        num_to_keep=1,
        min_keys=None,
        max_keys=None,
        importance_keys=(ckpt_recency,),
        ckpt_predicate=None,
        verbosity=logging.INFO,
    ):
        """Deletes checkpoints; a kill in the middle leaves none that is half there.

        Arguments
        ---------
        num_to_keep : int
            Checkpoints that are kept for each key.
        min_keys, max_keys : list of str
            Keys of the meta; those with the lowest or highest values are kept.
        importance_keys : list of callable
            Map a checkpoint to a number; those with the highest are kept.
        ckpt_predicate : callable or None
            Only checkpoints for which it is true can be deleted.
        verbosity : int
            Level at which deletions are logged.
        """
        if num_to_keep < 0:
            raise ValueError(f"num_to_keep must be 0 or more, got {num_to_keep}; set it to 1")
        keys = [{"min_key": key} for key in min_keys or []]
        keys += [{"max_key": key} for key in max_keys or []]
        keys += [{"importance_key": key} for key in importance_keys]

        def delete():
            found, kept = set(), set()
            for key in keys:
                paths = [
                    c.path for c in self.find_checkpoints(**key, ckpt_predicate=ckpt_predicate)
                ]
                found.update(paths)
                kept.update(paths[:num_to_keep])
            for path in sorted(found - kept):
                remove(path)
                logger.log(verbosity, f"Deleted checkpoint in {path}")

        on_main_process(delete)

    def recover_if_possible(
        self, importance_key=None, max_key=None, min_key=None, ckpt_predicate=None
    ):
        """Loads the best whole checkpoint; those that are not whole are set aside.

        Arguments
        ---------
        importance_key, max_key, min_key, ckpt_predicate
            What is best, as for ``find_checkpoints``; by default, the most recent.

        Returns
        -------
        checkpoint : speechbrain.utils.checkpoints.Checkpoint or None
            The same on every rank; None where there is none to choose from.

        Raises
        ------
        RunError
            Where there were checkpoints, now or before, and none of them is whole.
        """
        best = importance_key, max_key, min_key, ckpt_predicate
        damaged = None
        while True:
            checkpoint = on_main_process(partial(self._choose, damaged, *best))
            if checkpoint is None:
                logger.info(f"No checkpoint in {self.checkpoints_dir} yet")
                return None
            # Its sums are right, but its content may still be wrong. The next checkpoint then
            # replaces what was loaded of it.
            reasons = gather_over_ranks(self._load(checkpoint))
            reason = next((reason for reason in reasons if reason), None)
            if reason is None:
                return checkpoint
            damaged = checkpoint.path, reason

    def find_checkpoints(
        self,
        importance_key=None,
        max_key=None,
        min_key=None,
        ckpt_predicate=None,
        max_num_checkpoints=None,
    ):
        """As in SpeechBrain. Of ``max_key`` or ``min_key``, those with a number under it."""
        key = max_key or min_key

        def is_candidate(checkpoint):
            has_number = key is None or is_number(checkpoint.meta.get(key))
            return has_number and (ckpt_predicate is None or ckpt_predicate(checkpoint))

        return super().find_checkpoints(
            importance_key, max_key, min_key, is_candidate, max_num_checkpoints
        )

    def load_checkpoint(self, checkpoint):
        """Loads a checkpoint, or raises a RunError where it is damaged."""
        if wrong := what_is_wrong(checkpoint.path) or self._load(checkpoint):
            raise RunError(f"{checkpoint.path} is damaged ({wrong}): load another checkpoint")

    def _load(self, checkpoint):
        """Loads a checkpoint whose sums are right; gives what is wrong with it, or None."""
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

    # ---- on the main process ---------------------------------------------------------------

    def _save_or_explain(self, *arguments):
        """A checkpoint and None, or None and why there is no space for it."""
        self._remove_leftovers()
        try:
            return self._save(*arguments), None
        except (OSError, RuntimeError) as error:
            by_torch = any(part in str(error) for part in TORCH_WRITER)
            if not by_torch and getattr(error, "errno", None) not in NO_SPACE:
                raise
            written = sum(map(size, self.checkpoints_dir.glob(f"{UNFINISHED}*")))
            self._remove_leftovers()
            paths = (checkpoint.path for checkpoint in self.find_checkpoints())
            last = next((path for path in paths if not what_is_wrong(path)), None)
            needed = f"{size(last) / 1e6:.1f}" if last else f"more than {written / 1e6:.1f}"
            others = f"The last checkpoint {last} is whole" if last else "There is no other yet"
            reason = f"{'torch.save: ' if by_torch else ''}{error}".splitlines()[0]
            failure = (
                f"no checkpoint was saved in {self.checkpoints_dir} ({reason}): it needs {needed} "
                f"MB, and {shutil.disk_usage(self.checkpoints_dir).free / 1e6:.1f} MB are free. "
                f"{others}; make space on that disk or in your quota"
            )
            logger.warning(f"{failure}. Training goes on")
            return None, failure

    def _save(self, meta, end_of_epoch, name, verbosity):
        check_meta(meta)
        # A clock that was set back must not make an older checkpoint the most recent.
        newest = max(map(ckpt_recency, self.list_checkpoints()), default=0.0)
        now = max(time.time(), math.nextafter(newest, math.inf))
        unfinished, meta, files = super().save_checkpoint(
            {"unixtime": now, **meta}, end_of_epoch, name, logging.DEBUG
        )
        write_manifest(unfinished)
        path = unfinished.with_name(unfinished.name.removeprefix(UNFINISHED))
        if path.exists():  # a name used again: at any moment one of the two is there, and whole
            spare = super()._new_checkpoint_dirpath()
            os.rename(unfinished, spare)
            remove(path)
            os.rename(spare, path)
        else:
            os.rename(unfinished, path)
        flush(self.checkpoints_dir)
        kind = "end-of-epoch" if end_of_epoch else "intra-epoch"
        logger.log(verbosity, f"Saved an {kind} checkpoint in {path}")
        return Checkpoint(path, meta, {key: path / file.name for key, file in files.items()})

    def _new_checkpoint_dirpath(self):
        path = super()._new_checkpoint_dirpath()
        return path.with_name(UNFINISHED + path.name)

    def _custom_checkpoint_dirpath(self, name):
        path = super()._custom_checkpoint_dirpath(name)
        return path.with_name(UNFINISHED + path.name)

    def _remove_leftovers(self):
        """What a save or a deletion has left behind that failed or was killed."""
        for prefix in (UNFINISHED, DELETED):
            for path in self.checkpoints_dir.glob(f"{prefix}*"):
                remove_tree(path)

    def _choose(self, damaged, *best):
        """The best checkpoint that is whole, after setting aside what is not."""
        wrong = dict([damaged] if damaged else [])
        wrong.update((p, what_is_wrong(p)) for p in self._folders() if not meta_is_whole(p))
        for path, reason in wrong.items():
            set_aside(path, reason)
        for checkpoint in self.find_checkpoints(*best):
            reason = what_is_wrong(checkpoint.path)
            if reason is None:
                return checkpoint
            set_aside(checkpoint.path, reason)
            wrong[checkpoint.path] = reason
        before = sorted(path.name for path in self.checkpoints_dir.glob(f"{DAMAGED}*"))
        if wrong or (before and not self._folders()):
            raise RunError(
                f"{self.checkpoints_dir} has no whole checkpoint to go on from, only "
                f"{', '.join(before)}: restore one of these folders from a copy, under its name "
                f"without {DAMAGED!r}, or start in a new output_folder:"
            )
        return None

    def _folders(self):
        return sorted(p for p in self.checkpoints_dir.glob(f"{CKPT_PREFIX}*") if p.is_dir())

    def _list_checkpoint_dirs(self):
        """Those whose ``CKPT.yaml`` is as it was saved; SpeechBrain stumbles over any other."""
        return [path for path in self._folders() if meta_is_whole(path)]
