"""The process of a trial: reads a request from a folder and writes its result there.

``python -m brainquant.planning.trial_process FOLDER``; see ``brainquant.planning.trial``.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import one_line_errors
from ..processes.family import ask_for_signal_when_parent_ends


def main(folder: str) -> None:
    """Does what the request asks for.

    Arguments
    ---------
    folder : str
        Holds ``request.json``; gets ``result.json``, and ``doing`` on the way.
    """
    began = time.perf_counter()
    ask_for_signal_when_parent_ends(signal.SIGKILL)
    with one_line_errors():
        request = json.loads(Path(folder, "request.json").read_text("utf-8"))
        run, loaders = open_trial(request, until=began + request["seconds"])
        run.note = lambda text: Path(folder, "doing").write_text(text, "utf-8") and None

        def keep(result: Mapping[str, Any]) -> None:
            path = Path(folder, "result.part")
            path.write_text(json.dumps(result), "utf-8")
            path.replace(Path(folder, "result.json"))

        keep(TASKS[request["task"]](run, loaders[1], keep))


def open_trial(request: Mapping[str, Any], *, until: float) -> tuple[Any, Any]:
    """A ``TrialRun`` of the recipe of a request, and its loaders.

    Arguments
    ---------
    request : dict
        ``argv`` and ``capacity``.
    until : float
        When to end, as ``time.perf_counter`` counts.
    """
    from ..recipe import build_brain, build_loaders
    from ..training.hparams import load_hparams, parse_arguments
    from .capacity import Capacity, device_capacity
    from .trial_run import TrialRun

    hparams_file, run_opts, overrides = parse_arguments([*request["argv"], "--noprogressbar"])
    hparams = load_hparams(hparams_file, overrides)
    if hparams["prepare"]:
        hparams["prepare"]()
    # As the run builds it: some memory of the start is never given back.
    brain = build_brain(hparams, run_opts)
    # Workers would make the time of a step depend on how far ahead they are.
    loaders = build_loaders(brain, {**hparams, "num_workers": 0})
    of_machine = request["capacity"] and Capacity(*request["capacity"])
    capacity = device_capacity(brain.device) or of_machine
    return TrialRun(brain, loaders[0], hparams, capacity=capacity, until=until), loaders


def try_steps(run: Any, valid_loader: Any, keep: Callable[..., None]) -> dict[str, Any]:
    """The values of a ``Trial``; keeps what is known so far, in case that a step takes too long."""
    import torch

    from .trial_steps import Trial

    run.note("the fit of its quantiser")
    began = time.perf_counter()
    run.memory.start()
    run.prepare(valid_loader)
    before = run.memory.peak(), time.perf_counter() - began
    floor, least = run.measure_floor()
    trained = (p for p in run.brain.modules.parameters() if p.requires_grad)
    trial = Trial(
        device=str(run.brain.device),
        threads=torch.get_num_threads(),
        parameters=sum(p.numel() for p in trained),
        accumulation=run.accumulation,
        floor_bytes=floor,
        least_bytes=least,
        shapes=[],
        steps=[run.last],
        pace=[],
        before_steps_bytes=before[0],
        before_steps_seconds=before[1],
        capacity=run.capacity,
    )
    keep(trial.to_json())
    trial = trial._replace(steps=(ramp := run.measure_ramp(floor)))
    keep(trial.to_json())
    if run.is_whole(ramp):
        trial = trial._replace(shapes=run.measure_shapes(ramp))
        trial = trial._replace(steps=run.measure_memory(ramp, trial.shapes, floor))
        keep(trial.to_json())
        # The run's own batches are twice as large as the largest of the trial.
        if not run.twice_is_too_much(trial.steps[-1], floor):
            trial = trial._replace(pace=run.measure_pace())
    return trial.to_json()


def find_batch(run: Any, valid_loader: Any, keep: Callable[..., None]) -> dict[str, Any]:
    """The values of a ``FoundBatch``."""
    from .batch_search import BatchSearch

    run.prepare(valid_loader)
    run.measure_floor()
    return BatchSearch(run).find()._asdict()


TASKS: dict[str, Callable[[Any, Any, Callable[..., None]], dict[str, Any]]] = {
    "steps": try_steps,
    "find_batch": find_batch,
}


if __name__ == "__main__":
    main(sys.argv[1])
