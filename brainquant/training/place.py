"""What a checkpoint's place in an epoch depends on, and whether it still holds."""

import hashlib

from speechbrain.utils.logger import get_logger

from ..errors import RunError

logger = get_logger(__name__)

# Keys of the YAML that decide which clips make which batch.
BATCH_KEYS = ("seed", "batch_seconds", "batch_clips", "num_buckets")


def run_setup(hparams, dataset, batches_per_step):
    """What has to be the same for a resumed run to go on with the very next batch.

    Arguments
    ---------
    hparams : dict
        Reads the keys that make the batches.
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        The training clips.
    batches_per_step : int
        Batches of one optimiser step, over ranks and accumulation.

    Returns
    -------
    setup : dict
        Texts and numbers by what they describe.
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


def check_state(state):
    """Raises a ValueError where the state of a run is none.

    Arguments
    ---------
    state : dict
        What ``LongRunBrain.run_state`` gave, if it is right.

    Example
    -------
    >>> check_state({"optimizer_step": "many"})
    Traceback (most recent call last):
    ValueError: optimizer_step is 'many', not a number of steps, batches or clips
    """
    if not isinstance(state, dict):
        raise ValueError(f"holds a {type(state).__name__} in the place of the run's state")
    for key in ("optimizer_step", "batches_done", "nonfinite_in_a_row"):
        if type(state[key]) is not int or state[key] < 0:
            raise ValueError(f"{key} is {state[key]!r}, not a number of steps, batches or clips")
    for key, kinds in (("setup", (dict, type(None))), ("bad_audio", dict), ("rank_states", list)):
        if not isinstance(state[key], kinds):
            raise ValueError(f"{key} is of the type {type(state[key]).__name__}")


def check_setup(saved, now, allowed):
    """Compares the setup of a checkpoint with that of the run that goes on from it.

    Another number of ranks with as many batches per step is no change: the place in the epoch is
    counted over ranks.

    Arguments
    ---------
    saved : dict
        ``run_setup`` of the checkpoint.
    now : dict
        ``run_setup`` of this run.
    allowed : bool
        ``resume_with_changes`` of the YAML.

    Returns
    -------
    same_batches : bool
        Whether the batches of the epoch are those of the checkpoint.

    Raises
    ------
    RunError
        Where something has changed that is not allowed to.

    Example
    -------
    >>> saved = {"seed": 1, "batch_seconds": 12, "batches_per_step": 2}
    >>> check_setup(saved, {**saved, "batches_per_step": 4}, allowed=True)
    True
    >>> check_setup(saved, {**saved, "batch_seconds": 10}, allowed=True)
    False
    """
    changed = [key for key in now if saved.get(key) != now[key]]
    if not changed:
        return True
    described = "; ".join(f"{key}: {saved.get(key)} then, {now[key]} now" for key in changed)
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
