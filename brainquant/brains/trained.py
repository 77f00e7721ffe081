"""A run that was made before, opened again for what its encoder has learnt."""

import os

from speechbrain.utils.run_opts import RunOptions

from ..training.hparams import load_hparams
from ..training.resolve import HPARAMS


def open_run(folder, *, device="cpu", overrides=None):
    """The Brain of a run, as its YAML and command line built it, before any training.

    Arguments
    ---------
    folder : str
        The ``output_folder`` of a run, where its ``hyperparams.yaml`` is.
    device : str
        Where the Brain computes.
    overrides : dict
        What to change in the YAML.

    Returns
    -------
    brain : PretrainBrain
    hparams : dict
        The hyperparameters that it was built from.

    Raises
    ------
    ValueError
        Where the folder is not that of a run.
    """
    path = find_hparams(folder)
    # Opened to be read: nothing is logged, and a folder that was moved is found where it is now.
    changes = {
        "output_folder": str(folder),
        "train_loggers": [],
        "checkpointer": {"checkpoints_dir": os.path.join(folder, "save")},
        **(overrides or {}),
    }
    hparams = load_hparams(path, changes, refuse_unused=False)
    options = RunOptions(device=device)
    brain = hparams["brain_class"](
        hparams["modules"], hparams["optimizer"], hparams, options, hparams["checkpointer"]
    )
    return brain, hparams


def load_trained(folder, *, device="cpu", overrides=None):
    """The Brain of a run with the weights of its last whole checkpoint, to be used.

    Arguments
    ---------
    folder : str
        The ``output_folder`` of a run.
    device : str
        Where the Brain computes.
    overrides : dict
        What to change in the YAML.

    Returns
    -------
    brain : PretrainBrain
        In evaluation mode. ``brain.optimizer_step`` tells how long it was trained.

    Raises
    ------
    ValueError
        Where the folder is not that of a run, or has no checkpoint.
    """
    brain, _ = open_run(folder, device=device, overrides=overrides)
    if brain.checkpointer.recover_if_possible() is None:
        raise ValueError(
            f"there is no checkpoint in {brain.checkpointer.checkpoints_dir}: the run has not "
            f"saved one yet; train it first"
        )
    brain.modules.eval()
    return brain


def without_seeding(hparams_file):
    """The override that keeps a YAML from seeding the global generators when it is loaded.

    In the copy that SpeechBrain writes into a run's folder, references are resolved: its
    ``__set_seed`` is a number of its own, and an override of ``seed`` would not change it.
    """
    with open(hparams_file, encoding="utf-8") as file:
        return {"__set_seed": None} if "\n__set_seed:" in file.read() else {}


def find_hparams(folder):
    """The path of a run's ``hyperparams.yaml``, or a ValueError where there is none."""
    path = os.path.join(folder, HPARAMS)
    if not os.path.isfile(path):
        raise ValueError(
            f"{folder} is not the folder of a run: it has no {HPARAMS}; give the output_folder: "
            f"that train.py has written to"
        )
    return path
