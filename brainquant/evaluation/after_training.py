"""Evaluations that follow a training: what ``evaluate:`` of a recipe's YAML may name."""

from __future__ import annotations

import os
from typing import Any

from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.logger import get_logger

from ..own_files import open_own
from ..training.brain import RunBrain
from . import probing

logger = get_logger(__name__)

MARKER = "evaluated_at_step.txt"  # in the folder of the run


def probe(brain: RunBrain, hparams: dict[str, Any], **options: Any) -> None:
    """Probes what a run has learnt, on the main process, once for each step that it ends at.

    A finished run that is started again is not probed again, unless the file
    ``evaluated_at_step.txt`` is removed from its folder.

    Arguments
    ---------
    brain : PretrainBrain
        After ``fit``; every rank has to call it.
    hparams : dict
        As for ``brainquant.evaluation.probing.probe``.
    **options : object
        The keyword arguments of ``brainquant.evaluation.probing.probe``.
    """
    run_on_main(_probe_once, [brain, hparams, options])


def _probe_once(brain: RunBrain, hparams: dict[str, Any], options: dict[str, Any]) -> None:
    marker = os.path.join(brain.run_log.folder, MARKER)
    step = str(brain.optimizer_step)
    if not brain.went_on and os.path.exists(marker):
        with open(marker, encoding="utf-8") as file:
            if file.read() == step:
                logger.info(f"The run is evaluated already; to do it again, remove {marker}")
                return
    probing.probe(brain, hparams, **options)
    with open_own(marker, "w") as file:
        file.write(step)
