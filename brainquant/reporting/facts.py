"""The numbers of a run that are compared with those of others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ..monitoring.health import ACCURACY_REFERENCES, START_LOSS, loss_reference
from ..monitoring.quality import LAYER_NUMBERS, START
from .objective import codebooks_of
from .run_files import last_of, number_of
from .run_folder import RunFolder

COPIED = ("loss", START_LOSS, "unmasked_loss", "accuracy", "cer", "wer", "speech_seconds")


def facts_of(run: RunFolder) -> dict[str, Any]:
    """What a run has come to, as values of JSON; what is not known is None or absent.

    Arguments
    ---------
    run : RunFolder
        The run.

    Returns
    -------
    facts : dict
        ``validation`` (see ``point_facts``), ``codes``, ``layers``, ``probes``, ``left_out``,
        ``checkpoints`` and so on; seconds, bytes, nats, and shares from 0 to 1. Error rates are in
        per cent, as in the log.
    """
    last = last_of(run.points, "valid")
    return {
        "name": run.name,
        "folder": run.folder,
        "objective": run.objective,
        "state": run.state,
        "steps": run.steps,
        "step_limit": run.step_limit,
        "run_seconds": run.run_seconds,
        "speech_seconds": run.speech_seconds,
        "speech_per_second": throughput(run.points),
        "validation": point_facts(last) or None,
        "training": point_facts(last_of(run.points, "train")) or None,
        "codes": code_facts(run.points) or None,
        "layers": layer_facts(run.points) or None,
        "probes": [probe._asdict() for probe in run.probes],
        "error_rates": run.error_rates,
        "left_out": count_left_out(run),
        "checkpoints": [kept._asdict() for kept in run.checkpoints],
        "health": {"text": run.verdict[0], "state": run.verdict[1]},
        "remarks": run.remarks,
    }


def point_facts(point: Mapping[str, Any]) -> dict[str, Any]:
    """Loss and accuracy of a log point, beside what they have to beat; empty without a loss.

    Example
    -------
    >>> facts = point_facts({"step": 9.0, "stage": "valid", "loss": 4.0, "unigram_loss": 5.5})
    >>> facts["gain"], facts["reference_name"]
    (1.5, 'unigram')
    """
    if not point:
        return {}
    facts: dict[str, Any] = {"step": int(point["step"])}
    facts |= {key: number_of(point, key) for key in COPIED if key in point}
    name, reference = loss_reference(point)
    loss = facts.get("loss")
    if name and loss is not None:
        facts["reference_name"] = name.removeprefix("the ")
        facts |= {"reference": reference, "gain": reference - loss}
    for key, name in ACCURACY_REFERENCES.items():
        if "accuracy" in facts and (share := number_of(point, key)) is not None:
            facts |= {"accuracy_reference": share, "accuracy_reference_name": name}
            break
    return facts


def code_facts(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How the codes of the last validation are used; without one, those of the last training point.

    Returns
    -------
    facts : dict
        ``codebooks``, ``size`` (codes of each), ``perplexity`` (mean of the codebooks), ``cap``
        (the highest that so many frames can show), ``usage`` and ``dead``; empty without codes.
    """
    point = last_of(points, "valid")
    if "code_perplexity" not in point:
        point = last_of(points, "train")
    values = point.get("code_perplexity")
    codebooks, size = codebooks_of(points)
    if not isinstance(values, list) or None in values:
        return {}
    facts = {"stage": point["stage"], "step": int(point["step"]), "codebooks": codebooks}
    numbers = {
        "size": size,
        "perplexity": sum(values) / len(values),
        "cap": number_of(point, "perplexity_cap"),
        "usage": number_of(point, "code_usage"),
        "dead": number_of(point, "dead_codes"),
        "commonest": number_of(point, "commonest_code"),
    }
    return facts | {k: value if _is_finite(value) else None for k, value in numbers.items()}


def layer_facts(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The quality without labels: of each layer, their mean, and that before training."""
    for point in reversed(points):
        if point.get("stage") == "valid" and any(name in point for name in LAYER_NUMBERS):
            facts: dict[str, Any] = {"step": int(point["step"])}
            for name in LAYER_NUMBERS:
                layers = point.get(name)
                layers = layers if isinstance(layers, list) else []
                facts[name] = [number if _is_finite(number) else None for number in layers]
                facts[f"mean_{name}"] = number_of(point, f"mean_{name}")
                facts[f"{START}mean_{name}"] = number_of(point, f"{START}mean_{name}")
            return facts
    return {}


def throughput(points: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds of speech a second in training: the median, so that no pause or start counts."""
    rates = [number_of(p, "speech_per_second") for p in points if p.get("stage") == "train"]
    known = [rate for rate in rates if rate is not None]
    return statistics.median(known) if known else None


def count_left_out(run: RunFolder) -> dict[str, int]:
    """How many clips and steps the training left out."""
    kinds = [entry["kind"] for entry in run.left_out]
    return {"clips": kinds.count("clip"), "steps": kinds.count("step")}


def common_step(runs: Sequence[RunFolder]) -> tuple[int, bool] | None:
    """A step to compare runs at that have ended at different ones.

    Returns
    -------
    step, exact : int, bool
        The last step at which all were validated; without one, the last validation of the run that
        has gone least far, and False. None if the runs have ended at the same step, or if fewer
        than two have a validation.
    """
    steps = [{int(p["step"]) for p in run.points if _is_valid(p)} for run in runs]
    known = [of_run for of_run in steps if of_run]
    if len(known) < 2 or len({max(of_run) for of_run in known}) == 1:
        return None
    shared = set.intersection(*known)
    return (max(shared), True) if shared else (min(map(max, known)), False)


def _is_valid(point):
    return bool(last_of([point], "valid"))


def at_step(run: RunFolder, step: int) -> Mapping[str, Any]:
    """The last validation of a run up to a step."""
    return last_of([point for point in run.points if point["step"] <= step], "valid")


def _is_finite(value):
    return value is not None and math.isfinite(value)
