"""Draws a probe: accuracy and effective rank by layer, and codes beside shuffled codes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from ..monitoring.report import COLOURS, GREY, save_figure
from .comparison import FRONT_END, LOG_MEL, PRETRAINED, UNTRAINED

ENCODERS = {
    PRETRAINED: {"color": COLOURS[0], "label": "pretrained"},
    UNTRAINED: {"color": COLOURS[1], "label": "untrained"},
}
REFERENCES = {LOG_MEL: (GREY, "--"), FRONT_END: (COLOURS[2], "--")}
MEASURES = {"phone_purity": "phone\npurity", "cluster_purity": "cluster\npurity", "pnmi": "PNMI"}


def draw_probe(table: Mapping[str, Any], image_file: str | Path) -> None:
    """Draws the results of a probe into a PNG.

    Arguments
    ---------
    table : dict
        The result of ``probe``.
    image_file : str
        The PNG to write.
    """
    panels = 2 + ("codes" in table) + ("abx" in table)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, rect=(0, 0, 1, 0.92))
    figure = Figure(figsize=(4.2 * panels, 4.6), dpi=120, layout=layout)
    accuracies = " · ".join(
        f"{name} {100 * row['mean']:.1f} ± {100 * row['spread']:.1f} %"
        for name, row in reversed(table["accuracies"].items())
        if name != FRONT_END
    )
    heading = f"Linear probe of {table['of']}: {accuracies}"
    size = min(12.5, 440 * panels / len(heading))  # fits the width
    figure.text(0.5, 0.955, heading, size=size, ha="center", va="center", parse_math=False)
    axes = figure.subplots(1, panels, width_ratios=[1.4, 1, 1, 1][:panels])
    _accuracy_panel(axes[0], table)
    for name, style in ENCODERS.items():
        ranks = table["effective_rank"][name]
        axes[1].plot(1 + np.arange(len(ranks)), ranks, marker="o", ms=4, **style)
    axes[1].set_ylim(0, 1.15 * max(map(max, table["effective_rank"].values())) or 1)
    finish(axes[1], "Effective rank of test frames", xlabel="encoder layer")
    if "codes" in table:
        _code_panel(axes[2], table["codes"])
    if "abx" in table:
        _abx_panel(axes[-1], table["abx"])
    save_figure(figure, image_file)


def _accuracy_panel(axis, table):
    """Draws mean and spread of each layer, and a ring around the layer chosen on validation."""
    for name, style in ENCODERS.items():
        row = table["accuracies"][name]
        by_seed = np.array(row["layers"])
        layers, mean, spread = 1 + np.arange(by_seed.shape[1]), by_seed.mean(0), by_seed.std(0)
        band = {"color": style["color"], "alpha": 0.2, "lw": 0}
        axis.fill_between(layers, mean - spread, mean + spread, **band)
        axis.plot(layers, mean, marker="o", ms=4, **style)
        ring = {"mfc": "none", "mec": style["color"], "mew": 1.5, "ms": 11, "ls": ""}
        axis.plot(row["best_layer"], row["mean"], marker="o", **ring)
    draw_references(axis, table)
    finish(axis, "Accuracy on the test set", xlabel="encoder layer (ring: best on validation)")
    axis.yaxis.set_major_formatter(percent)


def draw_references(axis: Any, table: Mapping[str, Any]) -> None:
    """Draws the accuracies of what has no layers: log-mel, front end and majority."""
    for name, (colour, style) in REFERENCES.items():
        if name in table["accuracies"]:
            row = table["accuracies"][name]
            low, high = row["mean"] - row["spread"], row["mean"] + row["spread"]
            axis.axhspan(low, high, color=colour, alpha=0.15, lw=0)
            axis.axhline(row["mean"], color=colour, ls=style, label=name)
    axis.axhline(table["majority"], color=GREY, ls=":", label="majority class")


def _abx_panel(axis, abx):
    """Draws the ABX errors by layer, and those of log-mel."""
    for kind, marker in (("within", "o"), ("across", "^")):
        if not abx[kind]:
            continue
        for name, style in ENCODERS.items():
            errors = abx[kind][name]
            label = f"{style['label']}, {kind}"
            axis.plot(
                1 + np.arange(len(errors)), errors, marker=marker, ms=4,
                color=style["color"], ls="-" if kind == "within" else "--", label=label,
            )  # fmt: skip
        axis.axhline(
            abx[kind][LOG_MEL][0], color=GREY, lw=1, ls="-" if kind == "within" else "--",
            label=f"log-mel, {kind}",
        )  # fmt: skip
    finish(axis, "ABX error of test phones", xlabel="encoder layer")
    axis.yaxis.set_major_formatter(percent)


def percent(share: float, _: object) -> str:
    """A share as the label of an axis.

    Example
    -------
    >>> percent(0.125, None)
    '12.5 %'
    """
    return f"{100 * share:g} %"


def _code_panel(axis, codes):
    """Draws the measures of codes and phones, each beside its value for shuffled codes."""
    positions = np.arange(len(MEASURES))
    for offset, values, style in (
        (-0.19, codes, {"color": COLOURS[0], "label": "codes"}),
        (0.19, codes["shuffled"], {"color": "#BBBBBB", "label": "shuffled codes"}),
    ):
        heights = [values[key] for key in MEASURES]
        bars = axis.bar(positions + offset, heights, width=0.36, **style)
        axis.bar_label(bars, fmt="%.2f", padding=2, fontsize=9)
    axis.set_ylim(0, 1.05)
    finish(axis, f"Codes and phones, {codes['frames']:,} frames")
    axis.set_xticks(positions, MEASURES.values())
    axis.grid(visible=False, axis="x")


def finish(axis: Any, title: str, xlabel: str | None = None) -> None:
    """Adds what all panels share: title, light grid and legend, as in a run's report."""
    axis.set_title(title, loc="left")
    axis.grid(color="#E5E5E5", lw=0.7)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    if xlabel:
        axis.set_xlabel(xlabel)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    # Nearly opaque, because a reference line may run behind it.
    axis.legend(framealpha=0.9, edgecolor="none", fontsize=9)
