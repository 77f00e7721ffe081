"""The points of a run's log: read, and sorted into curves."""

# G codebooks
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

STAGES = ("train", "valid")


def read_points(metrics_file: Path | str) -> list[dict[str, Any]]:
    """Log points in the file's order, without damaged lines and lines of steps that came again."""
    points = []
    if not os.path.exists(metrics_file):
        return points
    with open(metrics_file, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                point = json.loads(line)
                point["step"] = float(point["step"])
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                continue
            if not math.isfinite(point["step"]):
                continue
            while points and points[-1]["step"] > point["step"]:
                points.pop()
            points.append(point)
    # On the curves, means of a whole epoch would stand out among those of a few steps.
    if any(point.get("span") == "interval" for point in points):
        points = [
            point
            for point in points
            if point.get("stage") != "train" or point.get("span") != "epoch"
        ]
    return points


def values_by_step(
    points: Sequence[Mapping[str, Any]], key: str, stage: str, *, gaps: bool = False
) -> dict[float, np.ndarray]:
    """The values of a key by step, one for each codebook; of a step's lines the last finite one.

    A null, which stands for NaN, is left out, or with ``gaps`` it is one NaN. What is no number, in
    a log of another program, is left out.
    """
    series = {}
    for point in points:
        if point.get("stage") == stage and key in point:
            value = point[key]
            if value is None and not gaps:
                continue
            if type(value) is float:  # quick, for long logs
                values, is_finite = np.array((value,)), math.isfinite(value)
            else:
                try:
                    values = np.array(value, dtype=float).ravel()
                except (TypeError, ValueError):
                    continue
                if not values.size:
                    continue
                is_finite = np.isfinite(values).all()
            if is_finite or point["step"] not in series:
                series[point["step"]] = values
    return series


def reference_by_step(
    points: Sequence[Mapping[str, Any]], references: Mapping[str, str], *, gaps: bool = False
) -> tuple[str, str, dict[float, np.ndarray]]:
    """The first reference that was logged, from the stage that has more of it.

    Arguments
    ---------
    points : sequence of dict
        As ``read_points`` gives them.
    references : dict of str to str
        Keys of the log and what they are called, as ``health.LOSS_REFERENCES``.
    gaps : bool
        As for ``values_by_step``.

    Returns
    -------
    name : str
        What it is called; "" if none was logged.
    stage : str
        "train" or "valid", whose targets it is of; "" if none was logged.
    values : dict of float to np.ndarray
        As ``values_by_step`` gives them.

    Example
    -------
    >>> points = [{"step": 5.0, "stage": "valid", "loss": 3.0, "chance_loss": 4.6}]
    >>> names = {"unigram_loss": "the unigram", "chance_loss": "the chance"}
    >>> name, stage, values = reference_by_step(points, names)
    >>> name, stage, values[5.0].tolist()
    ('chance', 'valid', [4.6])
    """
    for key, name in references.items():
        series = {stage: values_by_step(points, key, stage, gaps=gaps) for stage in STAGES}
        stage = max(series, key=lambda stage: len(series[stage]))
        if series[stage]:
            return name.removeprefix("the "), stage, series[stage]
    return "", "", {}
