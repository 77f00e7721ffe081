"""Draws what the checkpoints of a run have learnt: accuracy, effective rank and ABX over steps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..monitoring.report import COLOURS, GREY, save_figure
from .comparison import UNTRAINED
from .figure import draw_references, finish, percent

KINDS = {"within": "o", "across": "^"}


def draw_steps(table: Mapping[str, Any], image_file: str | Path) -> None:
    """Draws the result of ``probe_steps`` into a PNG.

    Arguments
    ---------
    table : dict
        The result.
    image_file : str
        The PNG to write.
    """
    rows, kinds = table["steps"], [kind for kind in KINDS if kind in table["steps"][0]]
    steps = [row["step"] for row in rows]
    panels = 3 if kinds else 2
    figure = Figure(figsize=(4.8 * panels, 4.6), dpi=120, layout="constrained")
    axes = figure.subplots(1, panels, width_ratios=[1.4, 1, 1][:panels])

    chosen = np.array([[row["accuracy"]["mean"], row["accuracy"]["spread"]] for row in rows])
    last = np.array([np.array(row["accuracy"]["layers"])[:, -1] for row in rows])
    for means, spreads, style in (
        (chosen[:, 0], chosen[:, 1], {"color": COLOURS[0], "label": "layer chosen on validation"}),
        (last.mean(1), last.std(1), {"color": COLOURS[0], "ls": "--", "label": "last layer"}),
    ):
        band = {"color": style["color"], "alpha": 0.15, "lw": 0}
        axes[0].fill_between(steps, means - spreads, means + spreads, **band)
        axes[0].plot(steps, means, marker="o", ms=4, **style)
    untrained = table["accuracies"][UNTRAINED]
    axes[0].axhline(untrained["mean"], color=COLOURS[1], ls="--", label=UNTRAINED)
    draw_references(axes[0], table)
    finish(axes[0], f"Linear probe of {table['of']}: accuracy on the test set", xlabel="step")
    axes[0].yaxis.set_major_formatter(percent)

    ranks = [row["effective_rank"][-1] for row in rows]
    axes[1].plot(steps, ranks, marker="o", ms=4, color=COLOURS[0], label="last layer")
    reference = table["effective_rank"][UNTRAINED][-1]
    axes[1].axhline(reference, color=COLOURS[1], ls="--", label=UNTRAINED)
    axes[1].set_ylim(0, 1.15 * max(*ranks, reference) or 1)
    finish(axes[1], "Effective rank of test frames", xlabel="step")

    for kind in kinds:
        line = {"ls": "-" if kind == "within" else "--"}
        errors = [row[kind][-1] for row in rows]
        label = f"last layer, {kind}"
        axes[2].plot(steps, errors, color=COLOURS[0], marker=KINDS[kind], ms=4, label=label, **line)
        for name, colour in ((UNTRAINED, COLOURS[1]), ("log-mel", GREY)):
            error = table["abx"][kind][name][-1]
            axes[2].axhline(error, color=colour, lw=1, label=f"{name}, {kind}", **line)
    if kinds:
        finish(axes[2], "ABX error of test phones", xlabel="step")
        axes[2].yaxis.set_major_formatter(percent)
    save_figure(figure, image_file)
