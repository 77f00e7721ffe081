"""The keys whose values have changed since a run's checkpoint."""

from collections.abc import Mapping
from typing import Any

from speechbrain.utils.logger import get_logger

from ..errors import RunError
from .hparams import OPTIONS_SHOWN

logger = get_logger(__name__)

# Keys of the YAML that decide which clips make which batch.
BATCH_KEYS = ("seed", "batch_seconds", "batch_clips", "num_buckets")
# These keys may change; ``RunSetup`` compares those of the batches.
NOT_COMPARED = {
    "output_folder", "begin_from", "resume_with_changes", "lr_batch_seconds", *BATCH_KEYS
}  # fmt: skip
# The keys of a quantiser, and its arguments from which its tables are made.
QUANTISER = ("make_quantiser.", "quantiser.")
MAKE_TABLES = ("seed", "centroids", "layer")
NOT_THERE = "absent"


def changed_keys(then: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """The changed keys, with their values then and now.

    If an object has another class, its arguments are not listed. A key that refers to a changed
    key is not listed either, unless the tables of a quantiser are made from it.

    Example
    -------
    >>> then = {"lr": "0.1", "optimizer": "!name:SGD", "optimizer.lr": "0.1", "seed": "1"}
    >>> changed_keys(then, {**then, "lr": "0.2", "optimizer.lr": "0.2"})
    {'lr': '0.1 then, 0.2 now'}
    >>> changed_keys(then, {**then, "optimizer": "!name:AdamW", "optimizer.lr": "0.2"})
    {'optimizer': '!name:SGD then, !name:AdamW now'}
    >>> list(changed_keys({"path": "a", "quantiser.centroids": "a"},
    ...                   {"path": "b", "quantiser.centroids": "b"}))
    ['path', 'quantiser.centroids']
    """
    changed = {}
    for key in sorted({**then, **now}, key=lambda key: key.count(".")):
        was, is_now = then.get(key, NOT_THERE), now.get(key, NOT_THERE)
        parents = [".".join(key.split(".")[:n]) for n in range(1, key.count(".") + 1)]
        described = f"{was} then, {is_now} now"
        if was == is_now or any(parent in changed for parent in parents):
            continue
        if not parents or makes_tables(key) or described not in changed.values():
            changed[key] = described
    return changed


def makes_tables(key: str) -> bool:
    """Whether the tables of a quantiser are made from the value of a key."""
    return key.startswith(QUANTISER) and key.split(".")[-1] in MAKE_TABLES


def describe(changed: Mapping[str, str]) -> str:
    """Changed keys as a text."""
    return "; ".join(f"{key}: {values}" for key, values in changed.items())


def check_tables(changed: Mapping[str, str]) -> None:
    """Raises a RunError if the tables of a quantiser were made from other values.

    Example
    -------
    >>> check_tables({"lr": "0.1 then, 0.2 now"})
    >>> check_tables({"make_quantiser.seed": "1 then, 2 now"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    brainquant.errors.RunError: make_quantiser.seed: 1 then, 2 now: the tables of the...
    """
    for key, values in changed.items():
        if makes_tables(key):
            raise RunError(
                f"{key}: {values}: the tables of the quantiser are in the checkpoint, and the new "
                f"value would not count; go back to what was, begin in a new output_folder:, or "
                f"say resume_with_changes: True to keep the tables of the checkpoint"
            )


def keys_in_force(brain: Any) -> dict[str, str]:
    """The values of the YAML and the run options, which are compared when a run goes on.

    They are in ``values_by_key`` of the hyperparameters, from ``load_hparams``. The folder of the
    run is written as ``<output_folder>``, so that it may be moved.
    """
    options = {name: str(getattr(brain, name)) for name in OPTIONS_SHOWN}
    keys = {**options, **getattr(brain.hparams, "values_by_key", {})}
    folder = str(brain.hparams.output_folder)
    return {
        key: value.replace(folder, "<output_folder>")
        for key, value in keys.items()
        if key not in NOT_COMPARED
    }


def go_on_with_learning_rates(brain: Any) -> None:
    """Sets the learning rates of the last step; warns if they are not those of the checkpoint.

    Arguments
    ---------
    brain : RunBrain
        Has loaded its checkpoint.
    """
    limit = brain.optimizer_step_limit
    # Beyond its limit a run has nothing to train, and its schedule has no rates.
    if not brain.optimizer_step or (limit is not None and brain.optimizer_step > limit):
        return
    brain.steps.schedule.set_rates(brain.optimizer_step)
    then, now = brain.steps.lr_then, brain.steps.schedule.rates[0]
    if then == now:
        return
    step, advice = brain.optimizer_step, ""
    limit = brain.setup.loaded["keys"].get("optimizer_step_limit", NOT_THERE)
    if limit == str(step) and hasattr(brain.hparams, "begin_from"):
        best = brain.checkpointer.find_checkpoint(min_key="valid_loss")
        folder = best.path if best else brain.hparams.output_folder
        advice = (
            f". The run was finished there; to train on from its weights with a warm-up and "
            f"learning rates of their own, begin in a new output_folder: with begin_from: "
            f"{folder} and lr:, warmup_steps:, optimizer_step_limit: as for a new run"
        )
    logger.warning(
        f"The learning rate was {then:.4g} at step {step}; the YAML now gives {now:.4g} for that "
        f"step, and the run goes on with its YAML{advice}"
    )
