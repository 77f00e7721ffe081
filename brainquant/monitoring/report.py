"""One picture of a run, drawn from its log: does it learn, and are its codes in use?"""

# G codebooks, V codes
import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogFormatter, MaxNLocator

from .health import ACCURACY_REFERENCES, LOSS_REFERENCES, START_LOSS, short, verdict
from .points import read_points, reference_by_step, values_by_step
from .quality import LAYER_NUMBERS, START

# Okabe and Ito's colours: colour-blind readers can distinguish them
GREY = "#555555"
COLOURS = ("#0072B2", "#D55E00", "#009E73")
STAGES = {"train": {"color": COLOURS[0]}, "valid": {"color": COLOURS[1], "marker": "o"}}
VERDICT_COLOURS = {"good": "#00734F", "bad": "#C04A00", "unknown": GREY}


def plot_report(
    metrics_file: Path | str,
    code_counts: np.ndarray,
    image_file: Path | str,
    title: str = "",
    warmup_steps: int = 0,
) -> None:
    """Draws loss, accuracy, codes and schedules of a run into one PNG, under a one-line verdict.

    Where the log has the quality of the layers, two more panels show it.

    Arguments
    ---------
    metrics_file : str
        JSON lines, one log point each. Damaged lines are ignored; for a missing or empty file the
        picture says so. If the step goes back (a resumed run), later lines replace earlier ones.
    code_counts : np.ndarray
        How often each code was a target in the whole run, (G, V) integers.
    image_file : str
        The PNG to write. It is replaced in one step, so a viewer never sees half a picture.
    title : str
        Name of the run, in small print above the verdict.
    warmup_steps : int
        As for ``health.verdict``.

    Raises
    ------
    ValueError
        If ``code_counts`` does not have the two axes (codebooks, codes).

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> line = '{"step": 5, "stage": "valid", "loss": 3.0, "unigram_loss": 4.0}'
    >>> folder.join("metrics.jsonl").write(line)
    >>> plot_report(folder.join("metrics.jsonl"), np.ones((1, 8), int), folder.join("report.png"))
    >>> folder.join("report.png").read_binary()[1:4]
    b'PNG'
    """
    counts_GV = np.asarray(code_counts)
    if counts_GV.ndim != 2:
        raise ValueError(
            "code_counts must have the two axes (codebooks, codes), "
            f"got shape {counts_GV.shape}; pass code_counts[None] for a single codebook"
        )
    points = read_points(metrics_file)
    heading, state = verdict(points, counts_GV, warmup_steps)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, rect=(0, 0, 1, 0.92))
    measured = [name for name in LAYER_NUMBERS if values_by_step(points, name, "valid")]
    figure = Figure(figsize=(16 if measured else 12, 8), dpi=120, layout=layout)
    style = {"ha": "center", "va": "center", "parse_math": False}
    size = min(12.5, 1380 / len(heading))  # fits the width
    figure.text(0.5, 0.98, title, color=GREY, **style)
    figure.text(0.5, 0.945, heading, color=VERDICT_COLOURS[state], size=size, **style)
    if points:
        panels = figure.subplots(2, 4 if measured else 3)
        for axis, name in zip(panels[:, 3] if measured else (), measured):
            _layer_panel(axis, points, name)
        axes = panels[:, :3].flat
        start = values_by_step(points, START_LOSS, "valid")
        _curve(axes[0], start, "the model as it came", color=COLOURS[2], ls="--", zorder=1)
        _time_panel(axes[0], points, "Loss (nats)", "loss", LOSS_REFERENCES)
        _time_panel(axes[1], points, "Accuracy", "accuracy", ACCURACY_REFERENCES)
        axes[1].yaxis.set_major_formatter(_axis_percent)
        _code_panel(axes[2], points, counts_GV.shape[1])
        key, name = "grad_norm", "Gradient norm"
        if values_by_step(points, "temp", "train"):
            key, name = "temp", "Temperature of the quantiser"
        _time_panel(axes[3], points, name, key, stages=["train"], log=key == "grad_norm")
        _time_panel(axes[4], points, "Learning rate", "lr", stages=["train"])
        _histogram_panel(axes[5], counts_GV)
    save_figure(figure, image_file)


def save_figure(figure: Figure, image_file: Path | str) -> None:
    """Writes a PNG in one step, so that a viewer never sees half a picture.

    Arguments
    ---------
    figure : matplotlib.figure.Figure
        The picture.
    image_file : str
        The PNG to write or replace.
    """
    temporary = f"{os.fspath(image_file)}.{os.getpid()}.tmp"
    try:
        figure.savefig(temporary, format="png")
        os.replace(temporary, image_file)
    finally:
        if os.path.exists(temporary):  # half a picture, on a full disk
            os.remove(temporary)


def _curve(axis, series, label, **style):
    """Draws the mean of the codebooks over the steps; a single point as a dot."""
    values = [value.mean() for value in series.values()]
    if np.isfinite(values).any():
        style = {"marker": "o" if len(values) == 1 else "", "ms": 3.5, **style}
        axis.plot(list(series), values, label=label, **style)


def _time_panel(
    axis, points, title, key, references=None, stages=tuple(STAGES), log=False, label=""
):
    """Draws a key over the steps, and the first reference that was logged."""
    for stage in stages:
        _curve(axis, values_by_step(points, key, stage), f"{label}{stage}", **STAGES[stage])
    name, _, series = reference_by_step(points, references or {})
    _curve(axis, series, name, color=GREY, ls="--", zorder=1)
    _finish(axis, title, log)
    if axis.lines:
        _step_axis(axis, points)


def _code_panel(axis, points, codes):
    """Draws how many codes are in use: their perplexity, and the number of codes seen."""
    perplexities = values_by_step(points, "code_perplexity", "train")
    usage = values_by_step(points, "code_usage", "train")
    values = np.array(list(perplexities.values()))
    if values.size > len(values):
        band = {"color": STAGES["train"]["color"], "alpha": 0.2, "lw": 0}
        name = "lowest to highest codebook"
        axis.fill_between(list(perplexities), values.min(1), values.max(1), label=name, **band)
    used = {step: codes * share for step, share in usage.items()}
    _curve(axis, used, "codes used, train", color="#999999", zorder=1)
    cap = values_by_step(points, "perplexity_cap", "train")
    _curve(axis, cap, "most possible", color="k", ls=":")
    title = "Codes in use, per codebook"
    _time_panel(axis, points, title, "code_perplexity", log=True, label="perplexity, ")
    if axis.lines:
        axis.set_ylim(0.9, 1.3 * codes)
        share = axis.secondary_yaxis("right", functions=(lambda n: n / codes, lambda s: s * codes))
        share.yaxis.set_major_formatter(_axis_percent)


def _layer_panel(axis, points, name):
    """Draws a number of the layers: their mean, all of them, and the mean before training."""
    series = values_by_step(points, name, "valid")
    values, colour = np.array(list(series.values())), STAGES["valid"]["color"]
    if values.shape[1] > 1:
        names = {0: "first layer", values.shape[1] - 1: "last layer"}
        for layer, style in zip(names, (":", "--")):
            of_layer = {step: value[layer : layer + 1] for step, value in series.items()}
            _curve(axis, of_layer, names[layer], color=colour, ls=style, lw=1)
    _curve(axis, series, "mean of the layers", color=colour, marker="o")
    start = values_by_step(points, START + name, "valid")
    _curve(axis, start, "mean before training", color=COLOURS[2], ls="--", zorder=1)
    _finish(axis, LAYER_NUMBERS[name], log=False)
    axis.set(ylim=(0, None))
    _step_axis(axis, points)


def _step_axis(axis, points):
    axis.set(xlabel="step", xlim=(0, max(1, 1.03 * points[-1]["step"])))
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.xaxis.set_major_formatter("{x:,.0f}")


def _histogram_panel(axis, counts_GV):
    """Draws the share of frames of each code, the commonest first, and uniform use."""
    codes = counts_GV.shape[1]
    lowest = 1 / codes
    for index, counts_V in enumerate(counts_GV):
        used_V = np.sort(counts_V[counts_V > 0])[::-1] / max(1, counts_V.sum())
        if len(used_V):
            lowest = min(lowest, used_V[-1])
            style = {"color": COLOURS[index % 3], "marker": "o" if len(used_V) == 1 else ""}
            if len(counts_GV) <= 3:
                dead = codes - len(used_V)
                style["label"] = f"codebook {index + 1}: {dead:,} of {codes:,} never used"
            axis.plot(1 + np.arange(len(used_V)), used_V, **style)
    if axis.lines:
        axis.axhline(1 / codes, color=GREY, ls="--", zorder=1, label="uniform use")
        axis.set(xscale="log", xlim=(0.9, 1.1 * codes), ylim=(0.03 * lowest, 1.5))
        axis.set(xlabel="rank of the code", ylabel="share of frames")
        axis.xaxis.set_major_formatter(short)
    _finish(axis, "How often each code was a target", log=True, loc="lower left")
    axis.yaxis.set_major_formatter(_axis_percent)


def _axis_percent(share, _):
    return f"{100 * share:g} %"


def _finish(axis, title, log, loc="best"):
    """Gives a panel its title, light grid, scale and legend."""
    axis.set_title(title, loc="left")
    axis.grid(color="#E5E5E5", lw=0.7)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.yaxis.set_major_formatter(short)
    if not axis.lines:
        axis.text(0.5, 0.5, "not logged", transform=axis.transAxes, ha="center", color=GREY)
        axis.set(xticks=[], yticks=[])
        return
    if log and np.isfinite(axis.dataLim.minposy):  # something positive to draw
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(short)
        axis.yaxis.set_minor_formatter(LogFormatter())  # labels within a decade
    if len(axis.lines) > 1:
        axis.legend(frameon=False, fontsize=9, loc=loc)
