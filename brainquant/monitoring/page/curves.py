"""The curves of one or several runs, from the points of their logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from ..health import ACCURACY_REFERENCES, LOSS_REFERENCES, START_LOSS
from ..points import STAGES, reference_by_step, values_by_step
from ..quality import LAYER_NUMBERS, START
from .assets import template
from .chart import COLOURS, Chart, Curve, chart
from .render import PageSection
from .thin import fair_share

# A page may have so many points, which are about 12 bytes each; a curve may have LEAST anyway.
BUDGET, LEAST = 10_000, 60
KNOTS = 120  # of a run, between which speech and time are lines over the steps
AXES = {"step": "steps", "speech": "speech", "time": "wall time"}
AXIS_KEYS = {"speech": "speech_seconds", "time": "run_seconds"}
# Dashes, marks and, where a page has one run only, the number of the colour.
KINDS = {
    "train": ("", False, 0),
    "valid": ("", True, 1),
    "reference": ("7 4", False, -1),
    "start": ("1 4", False, 2),
    "first": ("2 3", False, 3),
    "last": ("7 3 2 3", False, 4),
}
OBJECTIVES_DIFFER = "The objectives differ: compare each run with its own reference only."
STATES = {"good": "✓ good", "bad": "✗ look at it", "unknown": "? not known"}


class LoggedRun(NamedTuple):
    """A run as its log shows it.

    Attributes
    ----------
    name : str
        What the page calls it.
    points : sequence of dict
        Its log points, as ``monitoring.points.read_points`` gives them.
    verdict : tuple of (str, str)
        The text and the state ("good", "bad" or "unknown") of ``monitoring.health.verdict``.
    """

    name: str
    points: Sequence[Mapping[str, Any]]
    verdict: tuple[str, str] = ("", "unknown")


class Panel(NamedTuple):
    """Which numbers of the log a chart shows."""

    title: str
    key: str
    stages: Sequence[str] = STAGES
    references: Mapping[str, str] = {}
    start: str = ""  # the key of the same number before the training
    spread: tuple[str, str] = ("", "")  # names of the first and the last of several values
    log: bool = False
    percent: bool = False


PANELS = [
    Panel("Loss (nats)", "loss", references=LOSS_REFERENCES, start=START_LOSS),
    Panel("Accuracy", "accuracy", references=ACCURACY_REFERENCES, percent=True),
    Panel("Character errors (%)", "cer"),
    Panel("Word errors (%)", "wer"),
    Panel(
        "Perplexity of the codes, mean of the codebooks",
        "code_perplexity",
        references={"perplexity_cap": "most possible"},
        spread=("first codebook", "last codebook"),
        log=True,
    ),
    Panel("Codes in use, share of the codebook", "code_usage", percent=True),
    *(
        Panel(name, key, ["valid"], start=START + key, spread=("first layer", "last layer"))
        for key, name in LAYER_NUMBERS.items()
    ),
    Panel("Learning rate", "lr", ["train"]),
    Panel("Gradient norm", "grad_norm", ["train"], log=True),
    Panel("Temperature of the quantiser", "temp", ["train"]),
    Panel("Seconds of speech per second", "speech_per_second", ["train"]),
]


def curve_sections(runs: Sequence[LoggedRun]) -> list[PageSection]:
    """The verdicts and the curves of runs, those of all runs in the same charts.

    One switch takes all charts from steps to seconds of speech and to wall time. Runs whose log
    does not have these are named then.

    Arguments
    ---------
    runs : sequence of LoggedRun
        The runs; their order decides on their numbers and colours.

    Returns
    -------
    sections : list of PageSection
        "health", if there is a verdict, and "curves".

    Example
    -------
    >>> points = [{"step": 10.0 * n, "stage": "train", "loss": 5.0 - n} for n in range(3)]
    >>> sections = curve_sections([LoggedRun("one", points, ("codes have collapsed", "bad"))])
    >>> [section.anchor for section in sections]
    ['health', 'curves']
    >>> "Loss (nats)" in sections[1].body, "Accuracy" in sections[1].body
    (True, False)
    """
    sections = []
    if any(text for text, _ in (run.verdict for run in runs)):
        sections.append(PageSection("health", "Health", _verdicts(runs)))
    charts = [made for panel in PANELS if (made := _chart(panel, runs)).curves]
    if not charts:
        return [
            *sections,
            PageSection("curves", "Curves", Markup("<p>Nothing was logged yet.</p>")),
        ]
    lengths = [len(curve.x) for made in charts for curve in made.curves]
    most = fair_share(lengths, BUDGET, LEAST)
    drawn = Markup("").join(chart(made, most_points=most) for made in charts)
    body = _controls(runs) + Markup('<div class="charts">\n{}</div>\n').format(drawn)
    return [*sections, PageSection("curves", "Curves", body)]


def _verdicts(runs):
    """The health of each run in a line."""
    lines = Markup("")
    for run in runs:
        text, state = run.verdict
        step = max((point["step"] for point in run.points), default=0)
        lines += Markup(
            '<li><span class="verdict {}">{}</span> <bdi>{}</bdi> at step {}: {}</li>\n'
        ).format(state, STATES[state], run.name, f"{step:,.0f}", text or "no codes are watched")
    return Markup('<ul class="health">\n{}</ul>\n').format(lines)


def _controls(runs):
    """The switches for all charts, and where the steps of each run are on the other axes."""
    data = [{"name": run.name, **_knots(run.points)} for run in runs]
    logged = [a for a in AXES if a == "step" or any(a in knots for knots in data)]
    return Markup(
        template("controls.html").render(
            axes=[(axis, AXES[axis]) for axis in logged], runs=data, colours=COLOURS
        )
    )


def _knots(points):
    """Steps, and the seconds of speech and of time at them, where the log has both or one."""
    found = {}
    for axis, key in AXIS_KEYS.items():
        seconds = {}
        for stage in STAGES:
            seconds |= {step: v[0] for step, v in values_by_step(points, key, stage).items()}
        steps = sorted(step for step, value in seconds.items() if np.isfinite(value))
        if steps:
            numbers = np.unique(np.linspace(0, len(steps) - 1, KNOTS).round().astype(int))
            steps = [steps[number] for number in numbers]
            found[axis] = [steps, [float(f"{seconds[step]:.6g}") for step in steps]]
    return found


def _chart(panel, runs):
    """The chart of a panel; without curves if no log has its numbers."""
    curves, references = [], set()
    single = len(runs) == 1

    def add(run, kind, name, series, number_of=_mean):
        values = [number_of(value) for value in series.values()]
        if np.isfinite(values).any():
            dash, marks, colour = KINDS[kind]
            colour = colour if single else run
            marks = marks or len(values) == 1  # a line of one point would not be seen
            curves.append(Curve(name, list(series), values, run, colour, dash, marks))

    for number, run in enumerate(runs):
        for stage in panel.stages:
            series = values_by_step(run.points, panel.key, stage, gaps=True)
            add(number, stage, stage, series)
            several = any(len(values) > 1 for values in series.values())
            if single and panel.spread[0] and several and stage == panel.stages[0]:
                add(number, "first", panel.spread[0], series, lambda values: values[0])
                add(number, "last", panel.spread[1], series, lambda values: values[-1])
        # Training and validation have other targets, and so their references differ.
        name, stage, series = reference_by_step(run.points, panel.references, gaps=True)
        add(number, "reference", f"{name} ({stage})", series)
        references.add(name)
        if panel.start:
            series = values_by_step(run.points, panel.start, "valid")
            name = "the model as it came" if panel.start == START_LOSS else "before training"
            add(number, "start", name, series)
    objectives_differ = panel.key == "loss" and len(references) > 1
    return Chart(
        panel.title,
        curves,
        runs=[] if single else [run.name for run in runs],
        log=panel.log,
        percent=panel.percent,
        follows=True,
        note=OBJECTIVES_DIFFER if objectives_differ else "",
    )


def _mean(values):
    """Of the codebooks or layers; most often there is one."""
    return float(values[0] if len(values) == 1 else values.mean())
