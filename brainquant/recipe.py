"""Recipes and runs: trains what a recipe's YAML describes, and opens what it has trained."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

# The rest is imported where it is used: Ctrl-C while torch is imported also ends with one line.
from .errors import RunError, one_line_errors

if TYPE_CHECKING:
    from speechbrain.utils.run_opts import RunOptions
    from torch.utils.data import DataLoader

    from .models import SpeechEncoder
    from .training.brain import RunBrain


def main(argv: Sequence[str] | None = None) -> None:
    """Trains a recipe from its YAML: what each ``recipes/*/train.py`` calls.

    Wrong input ends the program with one line. In this order: read the command line, join the
    other ranks, build the YAML's objects, lock the run's folder, write ``hyperparams.yaml`` and
    open the log there, make the corpus (``prepare:``), show what the run is about to do, train, and
    evaluate (``evaluate:``).

    Arguments
    ---------
    argv : sequence of str or None
        The YAML file, then options. None takes the arguments of the process.
    """
    with ExitStack() as until_end:
        with one_line_errors():
            import speechbrain as sb
            from speechbrain.utils.distributed import run_on_main

            from .planning.overview import show_overview
            from .ranks import join_group, leave_group
            from .training.hparams import load_hparams, parse_arguments, run_folder
            from .training.log_config import log_config
            from .training.resolve import write_hparams
            from .training.run_lock import RunLock

            hparams_file, run_opts, overrides = parse_arguments(
                sys.argv[1:] if argv is None else argv
            )
            join_group(run_opts)
            hparams = load_hparams(hparams_file, overrides)
            folder = run_folder(hparams["output_folder"], run_opts)
            until_end.enter_context(RunLock(folder))
            write_hparams(folder, hparams_file, overrides)
            sb.create_experiment_directory(folder, log_config=log_config(run_opts))
            if hparams["prepare"]:
                run_on_main(hparams["prepare"])
            brain = build_brain(hparams, run_opts)
            train_loader, valid_loader = build_loaders(brain, hparams)
            show_overview(brain, hparams, train_loader, valid_loader)

        with one_line_errors(RunError):
            brain.fit(hparams["epoch_counter"], train_loader, valid_loader)
            if hparams["evaluate"]:
                hparams["evaluate"](brain, hparams)
            leave_group()


def build_brain(hparams: dict[str, Any], run_opts: RunOptions | dict[str, Any]) -> RunBrain:
    """The Brain of a recipe, before training.

    Arguments
    ---------
    hparams : dict
        What ``load_hparams`` gives.
    run_opts : RunOptions or dict
        Options of the command line; they win over the same keys in ``hparams``.
    """
    return hparams["brain_class"](
        hparams["modules"], hparams["optimizer"], hparams, run_opts, hparams["checkpointer"]
    )


def build_loaders(brain: RunBrain, hparams: dict[str, Any]) -> tuple[DataLoader, DataLoader | None]:
    """The loaders of training and validation audio, with the columns that the Brain reads."""
    from .data.batches import make_loaders

    return make_loaders(
        hparams,
        min_samples=getattr(brain, "min_samples", 1),
        columns=getattr(brain, "columns", ()),
    )


def open_recipe(argv: Sequence[str]) -> tuple[RunBrain, DataLoader]:
    """The Brain of a recipe and the loader of its training audio; makes the corpus if needed.

    Arguments
    ---------
    argv : sequence of str
        What the recipe's ``train.py`` takes: the YAML file, then options.
    """
    from .training.hparams import load_hparams, parse_arguments

    hparams_file, run_opts, overrides = parse_arguments(argv)
    hparams = load_hparams(hparams_file, overrides)
    if hparams["prepare"]:
        hparams["prepare"]()
    brain = build_brain(hparams, run_opts)
    return brain, build_loaders(brain, hparams)[0]


def open_run(
    folder: str, *, device: str = "cpu", overrides: dict[str, Any] | None = None
) -> tuple[RunBrain, dict[str, Any]]:
    """The Brain of a run as its YAML and command line built it, before any training.

    Arguments
    ---------
    folder : str
        The ``output_folder`` of a run, which has its ``hyperparams.yaml``.
    device : str
        Device of the Brain.
    overrides : dict or None
        Changes of the YAML.

    Returns
    -------
    brain : PretrainBrain or CTCBrain
    hparams : dict
        The hyperparameters that the Brain was built from, with ``hparams_file`` and ``overrides``.

    Raises
    ------
    ValueError
        If the folder is not that of a run.
    """
    from speechbrain.utils.run_opts import RunOptions

    from .training.hparams import load_hparams

    path = find_hparams(folder)
    # A run that is only read logs nothing, and its folder may have been moved.
    changes = {
        "output_folder": str(folder),
        "train_loggers": [],
        "checkpointer": {"checkpoints_dir": os.path.join(folder, "save")},
        **(overrides or {}),
    }
    hparams = load_hparams(path, changes, refuse_unused=False)
    return build_brain(hparams, RunOptions.from_dictionary({"device": device})), hparams


def load_run(
    folder: str, *, device: str = "cpu", overrides: dict[str, Any] | None = None
) -> tuple[RunBrain, dict[str, Any]]:
    """The Brain of a run with the weights of its last whole checkpoint, in evaluation mode.

    Arguments and results are those of ``open_run``. ``brain.optimizer_step`` is the number of
    steps that the weights were trained for.

    Raises
    ------
    ValueError
        If the folder is not that of a run, or has no checkpoint.
    """
    brain, hparams = open_run(folder, device=device, overrides=overrides)
    checkpointer = hparams["checkpointer"]
    if checkpointer.recover_if_possible() is None:
        raise ValueError(
            f"there is no checkpoint in {checkpointer.checkpoints_dir}: the run has not saved one "
            f"yet; train it first"
        )
    brain.modules.eval()
    return brain, hparams


def load_encoder(folder: str, *, from_scratch: bool = False, weights: bool = True) -> SpeechEncoder:
    """The encoder of a pretraining, ready for fine-tuning: for ``!apply:`` in a YAML.

    Arguments
    ---------
    folder : str
        The ``output_folder`` of a pretraining run, or of a run of SpeechBrain's BEST-RQ recipe; a
        folder that ``brainquant export`` has written; a folder of transformers; a ``.pt`` file of
        fairseq; or a Hub id, ``user/name``.
    from_scratch : bool
        Whether to draw its parameters anew, for comparison. Parts without parameters, such as the
        normalisation, keep the state of the pretraining.
    weights : bool
        False loads neither parameters nor statistics, because a checkpoint of the fine-tuning will.
        The copy of the YAML in the folder of a fine-tuning says so.

    Raises
    ------
    ValueError
        If the folder is not that of a run or of an export, or has no whole checkpoint.
    """
    from .models.speech_encoder import parts_without_parameters

    build = _open_pretraining(folder)
    encoder = build(weights)
    if from_scratch and weights:
        trained = parts_without_parameters(encoder)
        encoder = build(False)
        for name, part in trained.items():
            setattr(encoder, name, part)
    encoder.lacks_weights = not weights
    return encoder.train().prepare_finetuning()


def _open_pretraining(source: str) -> Callable[[bool], SpeechEncoder]:
    """What builds the encoder of a pretraining, with its weights or without."""
    from .brains.stock import is_stock, stock_encoder
    from .huggingface.continuing import load_encoder as load_held
    from .huggingface.folder import is_held_model
    from .inference.folder import build_encoder, is_exported, open_folder

    folder = _local_folder(source)
    if is_held_model(folder):
        return lambda weights: load_held(folder, weights=weights)
    if is_exported(folder):
        return lambda weights: open_folder(folder).encoder if weights else build_encoder(folder)
    path = find_hparams(folder)
    changes = without_seeding(path)  # the fine-tuning has a seed of its own
    if is_stock(path):
        return lambda weights: stock_encoder(path, changes, weights=weights)

    def build(weights: bool) -> SpeechEncoder:
        brain, _ = (load_run if weights else open_run)(folder, overrides=changes)
        return brain.raw("encoder")

    return build


def _local_folder(source: str) -> str:
    """The folder of a Hub id, which is downloaded; any other text is a path."""
    from .huggingface.hub import is_hub_id
    from .huggingface.source import download_model

    folder = os.fspath(source)
    return download_model(folder) if is_hub_id(folder) and not os.path.isdir(folder) else folder


def keep_pretraining(argument: str, folder: str, kept: str) -> dict[str, Any] | None:
    """Copies what builds the encoder of a pretraining: the ``files_needed`` of ``load_encoder``.

    Its weights are in the checkpoints of the fine-tuning.

    Arguments
    ---------
    argument : str
        The argument that names the pretraining.
    folder : str
        The folder of the pretraining.
    kept : str
        The folder of the copy, which is made once.

    Returns
    -------
    arguments : dict or None
        Arguments of ``load_encoder`` that use the copy; None if there is neither a pretraining nor
        a copy.
    """
    from .huggingface.continuing import keep_model
    from .huggingface.folder import is_held_model
    from .inference.folder import CONFIG, is_exported
    from .training.needed_files import FOLDER
    from .training.resolve import HPARAMS

    if not is_exported(kept) and not os.path.isfile(os.path.join(kept, HPARAMS)):
        source, folder = folder, _local_folder(folder)
        if is_held_model(folder):
            return keep_model(argument, source, kept, {})
        name = CONFIG if is_exported(folder) else HPARAMS
        if not os.path.isfile(os.path.join(folder, name)):
            return None
        os.makedirs(kept, exist_ok=True)
        if not is_exported(folder) and os.path.isdir(needed := os.path.join(folder, FOLDER)):
            shutil.copytree(needed, os.path.join(kept, FOLDER), dirs_exist_ok=True)
        shutil.copyfile(os.path.join(folder, name), os.path.join(kept, name))
    return {argument: kept, "weights": False}


load_encoder.files_needed = {"folder": keep_pretraining}  # pyright: ignore[reportFunctionMemberAccess]


def without_seeding(hparams_file: str) -> dict[str, Any]:
    """The override that keeps a YAML from seeding the global generators when it is loaded.

    SpeechBrain resolves references in the copy that it writes into the folder of a run. There
    ``__set_seed`` is a number of its own, which an override of ``seed`` does not change.
    """
    with open(hparams_file, encoding="utf-8") as file:
        return {"__set_seed": None} if "\n__set_seed:" in file.read() else {}


def find_hparams(folder: str) -> str:
    """The path of a run's ``hyperparams.yaml``; a ValueError if there is none."""
    from .training.resolve import HPARAMS

    path = os.path.join(folder, HPARAMS)
    if not os.path.isfile(path):
        raise ValueError(
            f"{folder} is not the folder of a run: it has no {HPARAMS}; give the output_folder: "
            f"that train.py has written to"
        )
    return path
