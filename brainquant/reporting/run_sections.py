"""What runs have come to, as sections of a page: results, differences, probes, left-out clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from ..monitoring.page import Chart, Curve, PageSection, chart, table
from .comparable import notes
from .compare import difference_rows
from .probe_rows import probe_of
from .probes import encoders_of
from .results import result_rows
from .rows import UNKNOWN, Row, percent
from .run_folder import RunFolder

MOST_LINES = 200  # of what was left out; the page names the number of the others
STYLE = """
.results { display: flex; flex-wrap: wrap; gap: 1.5rem 3rem; align-items: flex-start; }
.results > * { max-width: 100%; }
.results td { white-space: nowrap; }
.results caption { color: var(--ink); font-weight: 600; }
.better { color: var(--good); font-weight: 600; }
"""


def run_sections(runs: Sequence[RunFolder], remarks: Sequence[str] = ()) -> list[PageSection]:
    """Sections of a page about one run or several.

    Arguments
    ---------
    runs, remarks
        Of ``brainquant.reporting.several_runs.read_runs``.

    Returns
    -------
    sections : list of PageSection
        Those that have something to show.
    """
    sections = [_results(runs)]
    if len(runs) > 1:
        sections.append(_differences(runs))
    probed = dict.fromkeys(probe.of for run in runs for probe in run.probes)
    sections += [_probe(runs, of, number) for number, of in enumerate(probed, 1)]
    if any(run.left_out for run in runs):
        sections.append(_left_out(runs))
    found = [(run.name, remark) for run in runs for remark in run.remarks]
    if found := [*found, *(("", remark) for remark in remarks)]:
        body = table(["run", "remark"], found, caption="What is missing or damaged")
        sections.append(PageSection("remarks", "Remarks", body))
    return sections


def _results(runs: Sequence[RunFolder]) -> PageSection:
    rows = result_rows(runs)
    tables = Markup("").join(
        table(
            ["", *(run.name for run in runs)],
            [_cells(row) for row in rows if row.group == group],
            caption=group,
        )
        for group in dict.fromkeys(row.group for row in rows)
    )
    body = Markup('<div class="results">{}</div>').format(tables)
    if any(row.best for row in rows):
        body += Markup("<p>✓ better, as far as one run each can show.</p>")
    body += Markup("").join(Markup("<p>{}</p>").format(note) for note in notes(runs))
    return PageSection("results", "Results", body, style=STYLE)


def _cells(row: Row) -> list[object]:
    """The label and the cells; the better one has a sign, too, for those who see no colours."""
    better = Markup('<span class="better">{} <span aria-label="better">✓</span></span>')
    cells = [better.format(cell) if n in row.best else cell for n, cell in enumerate(row.cells)]
    return [row.label.strip(), *cells]


def _differences(runs: Sequence[RunFolder]) -> PageSection:
    rows = difference_rows(runs)
    if not rows or not rows[0].label:
        body = Markup("<p>The YAML of all runs that have one says the same.</p>")
    else:
        cells = [[row.label, *row.cells] for row in rows]
        caption = "Keys of the YAML whose values differ, without what follows from others"
        body = table(["key", *(run.name for run in runs)], cells, caption=caption)
    return PageSection("differences", "What differs", body)


def _probe(runs: Sequence[RunFolder], of: str, number: int) -> PageSection:
    """Accuracies in each layer and, of a probe of all checkpoints, at each step."""
    names = [run.name for run in runs]
    curves, over_steps = [], []
    accuracies: dict[tuple[str, str], list[str]] = {}
    ranks: dict[tuple[str, str], list[str]] = {}
    for run_number, run in enumerate(runs):
        for probe in (probe for probe in run.probes if probe.of == of and probe.steps):
            drawn = sorted((probed.step, probed.accuracy.mean) for probed in probe.steps)
            steps, means = [step for step, _ in drawn], [mean for _, mean in drawn]
            over_steps.append(_curve("pretrained", steps, means, run_number))
        if (probe := probe_of(run, of)) is None:
            continue
        for name in encoders_of(probe.accuracies):
            layers, label = probe.accuracies[name].layers, name.removesuffix(" encoder")
            curves.append(_curve(label, range(1, len(layers) + 1), layers, run_number))
            accuracies[run.name, label] = [percent(accuracy) for accuracy in layers]
            ranks[run.name, label] = [f"{rank:.1f}" for rank in probe.ranks.get(name, [])]
    charts, tables = Markup(""), Markup("")
    if curves:
        title = f"Accuracy of {of} in each layer"
        charts += chart(Chart(title, curves, runs=names, x_label="layer", percent=True))
        tables += _by_layer(accuracies, f"{title}: means of the seeds")
        tables += _by_layer(ranks, "Effective rank of the test frames in each layer")
    if over_steps:
        title = f"Accuracy of {of} over the checkpoints that are kept"
        charts += chart(Chart(title, over_steps, runs=names, percent=True, follows=True))
    html = '<div class="charts">{}</div><div class="results">{}</div>'
    body = Markup(html).format(charts, tables)
    return PageSection(f"probe-{number}", f"Probe of {of}", body, style=STYLE)


def _by_layer(rows: Mapping[tuple[str, str], list[str]], caption: str) -> Markup:
    """A table with a row for each encoder and a column for each layer."""
    layers = max(map(len, rows.values()))
    headers = ["run", "encoder", *(f"layer {layer}" for layer in range(1, layers + 1))]
    filled = [[*names, *cells, *[UNKNOWN] * (layers - len(cells))] for names, cells in rows.items()]
    return table(headers, filled, caption=caption)


def _curve(name: str, x: Sequence[float], y: Sequence[float], run: int) -> Curve:
    dash = "" if name == "pretrained" else "4 3"
    return Curve(name, list(x), list(y), run=run, colour=run, dash=dash, marks=True)


def _left_out(runs: Sequence[RunFolder]) -> PageSection:
    """The clips and steps that trainings left out, as many as a reader may want to see."""
    each = max(1, MOST_LINES // len(runs))
    rows, more = [], Markup("")
    for run in runs:
        for entry in run.left_out[:each]:
            what = f"clip {entry['id']}" if entry["kind"] == "clip" else "the step"
            rows.append([run.name, f"{entry['step']:,}", what, entry["reason"]])
        if (hidden := len(run.left_out) - each) > 0:
            text = "<p>{}: {} more are in its left_out.jsonl.</p>"
            more += Markup(text).format(run.name, f"{hidden:,}")
    headers = ["run", "at step", "left out", "why"]
    body = table(headers, rows, caption="What the training did not use")
    return PageSection("left-out", "Left out", body + more)
