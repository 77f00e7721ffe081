"""Compares the clips, batches and keys of a run with those of its checkpoint."""

import hashlib
from typing import Any

import torch
from speechbrain.utils.logger import get_logger

from ..errors import RunError
from ..ranks import gather_over_ranks, world_size
from .changed_keys import BATCH_KEYS, changed_keys, check_tables, describe

logger = get_logger(__name__)


class RunSetup:
    """The setup of a run, which is compared with that of its checkpoint.

    Arguments
    ---------
    batches : dict
        Everything that the batches depend on: see ``describe_batches``.
    keys : dict of str to str
        All keys in force: see ``brainquant.training.changed_keys.keys_in_force``.
    allowed : bool
        Whether the run may go on with changes: ``resume_with_changes`` of the YAML.

    Attributes
    ----------
    loaded : dict or None
        ``state_dict`` of the checkpoint that the run goes on from.
    same_batches : bool
        Whether the batches of an epoch are those of the checkpoint.
    changed : dict of str to str
        Keys whose values differ from the checkpoint's.

    Example
    -------
    >>> setup = RunSetup({"seed": 1, "batch_seconds": 12}, {"lr": "0.1"}, allowed=True)
    >>> setup.load_state_dict({"batches": {"seed": 1, "batch_seconds": 10}, "keys": {"lr": "0.2"}})
    >>> setup.same_batches, setup.changed
    (False, {'lr': '0.2 then, 0.1 now'})
    """

    def __init__(self, batches: dict, keys: dict[str, str], *, allowed: bool = False) -> None:
        self.batches = batches
        self.keys = keys
        self.allowed = allowed
        self.loaded: dict | None = None
        self.same_batches = True
        self.changed: dict[str, str] = {}

    def state_dict(self) -> dict:
        """The setup, for a checkpoint."""
        return {"batches": self.batches, "keys": self.keys}

    def load_state_dict(self, state: dict) -> None:
        """Compares the setup of a checkpoint with this one.

        Raises
        ------
        RunError
            If a change is not allowed.
        """
        for name in ("batches", "keys"):
            if not isinstance(state[name], dict):
                raise ValueError(f"{name} of the setup is a {type(state[name]).__name__}")
        self.same_batches = check_batches(state["batches"], self.batches, self.allowed)
        self.changed = changed_keys(state["keys"], self.keys)
        if not self.allowed:
            check_tables(self.changed)
        self.loaded = state

    def warn_of_changes(self) -> None:
        """Warns of the keys that have changed since the checkpoint."""
        if self.changed:
            logger.warning(
                f"Resuming with other keys, which count from here: {describe(self.changed)}"
            )

    def check_ranks_agree(self, modules: torch.nn.ModuleDict) -> None:
        """Compares the ranks, which all have to call this.

        Arguments
        ---------
        modules : torch.nn.ModuleDict
            The modules of the Brain.

        Raises
        ------
        RunError
            If the ranks have built different modules or see different clips.
        """
        if world_size() == 1:
            return
        built = {"clips and batches": str(self.batches)}
        for name, module in modules.items():
            digest = hashlib.sha256()
            for tensor in module.state_dict().values():
                if isinstance(tensor, torch.Tensor):
                    values = tensor.detach().cpu().reshape(-1).view(torch.uint8)
                    digest.update(values.numpy().tobytes())
            built[name] = digest.hexdigest()
        everywhere = gather_over_ranks(built)
        for number, other in enumerate(everywhere):
            for name in built:
                if other[name] != everywhere[0][name]:
                    raise RunError(
                        f"{name} of rank {number} is not that of rank 0: ranks would learn "
                        f"different things; give all ranks the same seed: and the same files"
                    )


def describe_batches(hparams: dict, dataset: Any, batches_per_step: int) -> dict:
    """Everything that the batches of a run depend on, as texts and numbers.

    If it is the same, a resumed run goes on with the very next batch.

    Arguments
    ---------
    hparams : dict
        Has the keys that make the batches.
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        The training clips.
    batches_per_step : int
        Batches of one optimiser step, over ranks and accumulation.
    """
    clips = hashlib.sha256()
    for clip in dataset.data_ids:
        clips.update(f"{clip}\t{dataset.data[clip]['duration']}\n".encode())
    return {
        **{key: hparams[key] for key in BATCH_KEYS},
        "train_csv": f"{len(dataset.data_ids)} clips, of IDs and durations with sha256 "
        f"{clips.hexdigest()[:12]}",
        "batches_per_step": batches_per_step,
    }


def check_batches(then: dict, now: dict, allowed: bool) -> bool:
    """Whether the batches of an epoch are those of the checkpoint, from both descriptions.

    Another number of ranks with as many batches per step is no change, since the place in an epoch
    is counted over ranks.

    Raises
    ------
    RunError
        If they have changed, and that is not allowed.

    Example
    -------
    >>> then = {"seed": 1, "batch_seconds": 12, "batches_per_step": 2}
    >>> check_batches(then, {**then, "batches_per_step": 4}, allowed=True)
    True
    >>> check_batches(then, {**then, "batch_seconds": 10}, allowed=True)
    False
    """
    changed = [key for key in now if then.get(key) != now[key]]
    if not changed:
        return True
    described = "; ".join(f"{key}: {then.get(key)} then, {now[key]} now" for key in changed)
    same_batches = changed == ["batches_per_step"]
    if not allowed:
        remedy = (
            "set grad_accumulation_factor: so that ranks x accumulation is as then"
            if same_batches
            else "go back to what was"
        )
        raise RunError(
            f"the run has changed since its checkpoint ({described}): {remedy}, begin in a new "
            f"output_folder: (a pretraining with begin_from: this one), or say "
            f"resume_with_changes: True to go on all the same"
        )
    if same_batches:
        logger.warning(f"Resuming with changes ({described}): steps have another size from here")
    else:
        logger.warning(
            f"Resuming with changes ({described}): an epoch that was not at its end begins again, "
            f"so that clips of its first part are seen twice"
        )
    return same_batches
