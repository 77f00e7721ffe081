"""Which checkpoints of a folder are whole, which one is best and which ones are deleted."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from speechbrain.utils import checkpoints as sb_checkpoints
from speechbrain.utils.checkpoints import CKPT_PREFIX, Checkpoint, ckpt_recency
from speechbrain.utils.logger import get_logger
from typing_extensions import override

from ..errors import RunError
from ..ranks import on_main_process
from .checkpoint_contents import is_number
from .checkpoint_folder import DAMAGED, meta_is_whole, remove, set_aside, what_is_wrong

logger = get_logger(__name__)

ImportanceKey = Callable[[Checkpoint], float]
Predicate = Callable[[Checkpoint], bool]


class WholeCheckpoints(sb_checkpoints.Checkpointer):
    """The part of our ``Checkpointer`` that finds, chooses and deletes checkpoints."""

    @override
    def find_checkpoints(
        self,
        importance_key: ImportanceKey | None = None,
        max_key: str | None = None,
        min_key: str | None = None,
        ckpt_predicate: Predicate | None = None,
        max_num_checkpoints: int | None = None,
    ) -> list[Checkpoint]:
        """As in SpeechBrain, but leaves out checkpoints without a number under the key."""
        key = max_key or min_key

        def is_candidate(checkpoint):
            has_number = key is None or is_number(checkpoint.meta.get(key))
            return has_number and (ckpt_predicate is None or ckpt_predicate(checkpoint))

        return super().find_checkpoints(
            importance_key, max_key, min_key, is_candidate, max_num_checkpoints
        )

    def _choose_whole(self, best, damaged):
        """Sets damaged checkpoints aside and returns the best whole one, or None without any.

        ``best`` are the arguments of ``find_checkpoints``; ``damaged`` is None, or a checkpoint
        that could not be loaded and the reason.
        """
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

    @override
    def delete_checkpoints(
        self,
        *,
        num_to_keep: int = 1,
        min_keys: Iterable[str] | None = None,
        max_keys: Iterable[str] | None = None,
        importance_keys: Iterable[ImportanceKey] = (ckpt_recency,),
        ckpt_predicate: Predicate | None = None,
        verbosity: int = logging.INFO,
    ) -> None:
        """Deletes checkpoints; if it is killed, no half-deleted checkpoint stays.

        Arguments
        ---------
        num_to_keep : int
            How many checkpoints each key keeps.
        min_keys, max_keys : list of str
            Keys of the meta; the lowest or highest values are kept.
        importance_keys : list of callable
            Functions from a checkpoint to a number; the highest numbers are kept.
        ckpt_predicate : callable or None
            Whether a checkpoint may be deleted. None: any may.
        verbosity : int
            The level of the log lines.
        """
        if num_to_keep < 0:
            raise ValueError(f"num_to_keep must be 0 or more, got {num_to_keep}; set it to 1")
        keys: list[dict[str, Any]] = [{"min_key": key} for key in min_keys or []]
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

    def _folders(self):
        return sorted(p for p in self.checkpoints_dir.glob(f"{CKPT_PREFIX}*") if p.is_dir())

    @override
    def _list_checkpoint_dirs(self) -> list[Path]:
        """Folders whose ``CKPT.yaml`` is as it was saved. SpeechBrain fails at any other."""
        return [path for path in self._folders() if meta_is_whole(path)]
