"""The results of runs as rows: the same for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..monitoring.health import short
from ..monitoring.quality import START
from .comparable import may_mark
from .facts import at_step, common_step, facts_of, point_facts
from .probe_rows import probe_rows
from .rows import UNKNOWN, Row, best_of, cells_of, duration, file_size, percent
from .run_folder import RunFolder


def result_rows(runs: Sequence[RunFolder]) -> list[Row]:
    """What the runs have come to. A row that no run has a value for is left out.

    Arguments
    ---------
    runs : sequence of RunFolder
        One run or several.

    Returns
    -------
    rows : list of Row
    """
    facts = [facts_of(run) for run in runs]
    mark = may_mark(runs)
    common = common_step(runs)
    rows = _run_rows(facts)
    validated = [f["validation"] or {} for f in facts]
    rows += _loss_rows("Last validation", validated, mark, common is None)
    if not any(validated):
        trained = [f["training"] or {} for f in facts]
        rows += _loss_rows("Last training point", trained, mark, False)
    if common is not None:
        step, exact = common
        title = f"Validation at step {step:,}" if exact else f"Last validation up to step {step:,}"
        points = [point_facts(at_step(run, step)) for run in runs]
        shown = _loss_rows(title, points, mark, exact)
        rows += [row for row in shown if not (exact and row.label == "step")]
        speech = cells_of((point.get("speech_seconds") for point in points), duration)
        rows.append(Row(title, "training speech by then", speech))
    rows += _code_rows([f["codes"] or {} for f in facts])
    rows += _layer_rows([f["layers"] or {} for f in facts], mark["units"])
    rows += probe_rows(runs)
    rows += _word_rows([f["error_rates"] for f in facts])
    return [row for row in rows if any(cell != UNKNOWN for cell in row.cells)]


def _run_rows(facts: Sequence[Mapping[str, Any]]) -> list[Row]:
    def row(label: str, key: str, write: Callable[[Any], str] = str) -> Row:
        return Row("Run", label, cells_of((f[key] for f in facts), write))

    def steps(f: Mapping[str, Any]) -> str:
        of = "" if f["step_limit"] is None else f" of {f['step_limit']:,}"
        return f"{f['steps']:,}{of}"

    def checkpoints(kept: Sequence[Mapping[str, Any]]) -> str:
        size = f" ({file_size(sum(c['bytes'] for c in kept))})" if kept else ""
        return f"{len(kept)}{size}"

    return [
        row("objective", "objective"),
        row("state", "state"),
        Row("Run", "steps", [steps(f) for f in facts]),
        row("time", "run_seconds", duration),
        row("training speech", "speech_seconds", duration),
        row("speech per second", "speech_per_second", lambda rate: f"{short(rate)} s"),
        row("clips left out", "left_out", lambda left: f"{left['clips']:,}"),
        row("steps left out", "left_out", lambda left: f"{left['steps']:,}"),
        row("checkpoints kept", "checkpoints", checkpoints),
    ]


def _loss_rows(
    group: str, points: Sequence[Mapping[str, Any]], mark: Mapping[str, bool], marked: bool
) -> list[Row]:
    """Rows of log points; of some, the better one is marked if they are at the same step."""

    def row(label: str, key: str, write: Callable[[Any], str], best: bool = False) -> Row:
        values = [point.get(key) for point in points]
        lowest = key in ("loss", "cer", "wer")
        better = best_of(values, highest=not lowest) if best and marked else frozenset()
        return Row(group, label, cells_of(values, write), better)

    nats = "{:.3f}".format
    references = {p["reference_name"]: None for p in points if "reference_name" in p}
    rows = [row("step", "step", "{:,}".format), row("loss", "loss", nats, mark["loss"])]
    diverged = [n for n, point in enumerate(points) if "loss" in point and point["loss"] is None]
    for number in diverged:
        rows[-1].cells[number] = "not finite"
    if "start_loss" in {key for point in points for key in point}:
        rows.append(row("of the model as it came", "start_loss", nats))
    rows += [
        row(f"reference ({', '.join(references)})", "reference", nats),
        row("gain: reference - loss", "gain", nats, mark["gain"]),
        row("unmasked loss", "unmasked_loss", nats),
        row("accuracy", "accuracy", percent, mark["loss"]),
    ]
    names = {p["accuracy_reference_name"]: None for p in points if "accuracy_reference_name" in p}
    rows.append(row(f"to beat ({', '.join(names)})", "accuracy_reference", percent))
    rows += [
        row("character errors (%)", "cer", "{:.2f}".format, mark["loss"]),
        row("word errors (%)", "wer", "{:.2f}".format, mark["loss"]),
    ]
    return rows


def _code_rows(codes: Sequence[Mapping[str, Any]]) -> list[Row]:
    group = "Codes at the last validation"

    def perplexity(f: Mapping[str, Any]) -> str | None:
        if f.get("perplexity") is None:
            return None
        cap = f["cap"] if f["cap"] is not None else f["size"]
        return f"{short(f['perplexity'])} of {short(cap)}"

    def dead(f: Mapping[str, Any]) -> str | None:
        if f.get("dead") is None:
            return None
        return f"{f['dead']:,.0f} of {f['codebooks'] * f['size']:,}"

    books = [f"{f['codebooks']} x {f['size']:,}" if f else None for f in codes]
    return [
        Row(group, "codebooks x codes", cells_of(books, str)),
        Row(group, "perplexity", cells_of(map(perplexity, codes), str)),
        Row(group, "codes in use", cells_of((f.get("usage") for f in codes), percent)),
        Row(group, "dead codes", cells_of(map(dead, codes), str)),
        Row(
            group,
            "commonest code",
            cells_of((f.get("commonest") for f in codes), percent),
        ),
    ]


def _layer_rows(layers: Sequence[Mapping[str, Any]], mark: bool) -> list[Row]:
    group = "Layers, without labels"
    units = [f.get("mean_units_repeat") for f in layers]
    rows = [Row(group, "units that repeat", cells_of(units, "{:.3f}".format))]
    if mark:
        rows = [rows[0]._replace(best=best_of(units))]
    for label, key, write in (
        ("  units at the start", f"{START}mean_units_repeat", "{:.3f}"),
        ("effective rank", "mean_effective_rank", "{:.1f}"),
        ("  rank at the start", f"{START}mean_effective_rank", "{:.1f}"),
    ):
        rows.append(Row(group, label, cells_of((f.get(key) for f in layers), write.format)))
    return rows


def _word_rows(rates: Sequence[Mapping[str, float]]) -> list[Row]:
    tests = dict.fromkeys(name for of_run in rates for name in of_run)
    rows = []
    for name in tests:
        values = [of_run.get(name) for of_run in rates]
        best = best_of(values, highest=False)
        rows.append(Row("Word errors (%)", name, cells_of(values, "{:.2f}".format), best))
    return rows
