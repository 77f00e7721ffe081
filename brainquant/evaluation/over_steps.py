"""Probes the checkpoints that a run has kept: what an encoder has learnt, over its steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from speechbrain.utils.checkpoints import Checkpoint
from speechbrain.utils.logger import get_logger

from ..data.prepare import write_whole
from ..errors import RunError
from .probing import prepare_comparison
from .steps_figure import draw_steps
from .subjects import subject_of_run
from .table import describe_probe, format_accuracy, rows_of

logger = get_logger(__name__)

ALL = "all"  # in the place of one checkpoint


def kept_checkpoints(brain: Any) -> list[Checkpoint]:
    """The checkpoints of a run, from the first step to the last; of each step the newest."""
    newest_first = brain.checkpointer.find_checkpoints()
    by_step: dict[int, Checkpoint] = {}
    for checkpoint in newest_first:
        by_step.setdefault(checkpoint.meta.get("step", -1), checkpoint)
    return [by_step[step] for step in sorted(by_step)]


def load_checkpoint(brain: Any, chosen: str) -> None:
    """Loads a checkpoint of a run that is named by its step or by its folder.

    Raises
    ------
    RunError
        If it is damaged.
    ValueError
        If the run has not kept it.
    """
    checkpoints = kept_checkpoints(brain)
    for checkpoint in brain.checkpointer.find_checkpoints():
        if chosen in (str(checkpoint.meta.get("step")), checkpoint.path.name):
            brain.checkpointer.load_checkpoint(checkpoint)
            brain.modules.eval()
            return
    steps = ", ".join(str(checkpoint.meta.get("step")) for checkpoint in checkpoints)
    raise ValueError(
        f"--checkpoint {chosen}: {brain.checkpointer.checkpoints_dir} has no such checkpoint; "
        f"give one of the steps {steps}, the name of a folder in it, or {ALL}"
    )


def probe_steps(
    brain: Any, hparams: dict[str, Any], manifests: Mapping[str, str], *, path: str, **options: Any
) -> dict[str, Any]:
    """Compares the encoder of each checkpoint that a run has kept, as ``probe_subject`` does.

    A checkpoint that is damaged is left out, with a warning. Codes are not measured.

    Arguments
    ---------
    brain : RunBrain
        Of ``brainquant.recipe.load_run``. It has the last of them afterwards.
    hparams : dict
        Hyperparameters of the run.
    manifests : Mapping of str to str
        Those of ``train``, ``valid`` and ``test`` utterances.
    path : str
        Path of the files without ending.
    **options : object
        More of ``prepare_comparison``, which has the errors.

    Returns
    -------
    table : dict
        As that of ``probe_subject``, but without the pretrained encoder, and with ``steps``: a list
        with the ``step``, ``accuracy``, ``effective_rank`` and ABX errors of each; also in
        ``<path>.json``.
    """
    subject = subject_of_run(brain, hparams)
    comparison, table = prepare_comparison(subject, manifests, **options)
    comparison.add_references(subject)
    steps = []
    for checkpoint in kept_checkpoints(brain):
        try:
            brain.checkpointer.load_checkpoint(checkpoint)
        except RunError as error:
            logger.warning(f"{error}; it is left out here")
            continue
        steps.append(brain.optimizer_step)
        comparison.add_encoder(f"step {steps[-1]}", subject.encoder)
    measured = comparison.table()
    table |= measured
    table["steps"] = [_take_step(measured, step) for step in steps]
    write_whole(path + ".json", json.dumps(table, indent=1))
    draw_steps(table, path + ".png")
    return table


def _take_step(measured: dict[str, Any], step: int) -> dict[str, Any]:
    """Moves what was measured of a step into a dict of its own."""
    name = f"step {step}"
    row = {
        "step": step,
        "accuracy": measured["accuracies"].pop(name),
        "effective_rank": measured["effective_rank"].pop(name),
    }
    for kind in ("within", "across"):
        if errors := measured.get("abx", {}).get(kind):
            row[kind] = errors.pop(name)
    return row


def format_steps(table: Mapping[str, Any]) -> str:
    """Formats the result of ``probe_steps`` as lines of at most 80 columns."""
    lines = describe_probe(table, f"Linear probe of {table['of']} over the steps of a run")
    lines += rows_of(table)
    kinds = [kind for kind in ("within", "across") if kind in table["steps"][0]]
    shown = "".join(f"{kind:>8}" for kind in kinds)
    if kinds:
        lines += ["", f"  {'':<53}ABX, last layer".rstrip()]
    lines += [f"  {'step':>9}   {'chosen layer':<22}{'last layer':<15}rank{shown}".rstrip()]
    for row in table["steps"]:
        accuracy, last = row["accuracy"], np.array(row["accuracy"]["layers"])[:, -1]
        chosen = format_accuracy(accuracy["mean"], accuracy["spread"])
        errors = "".join(f"{100 * row[kind][-1]:8.1f}" for kind in kinds)
        lines.append(
            f"  {row['step']:9,}  {chosen} (layer {accuracy['best_layer']:>2}) "
            f"{format_accuracy(last.mean(), last.std())}{row['effective_rank'][-1]:8.1f}{errors}"
        )
    return "\n".join(lines)
