"""What probes have measured, as rows: accuracies, ABX errors, and what codes say of phones."""

from __future__ import annotations

from collections.abc import Sequence

from ..evaluation.comparison import ENCODERS, FRONT_END, LOG_MEL, PRETRAINED
from ..evaluation.table import KINDS
from .probes import Accuracy, Probe, same_test
from .rows import Row, best_of, cells_of, percent
from .run_folder import RunFolder

CODES = {
    "phone_purity": "phone purity",
    "cluster_purity": "cluster purity",
    "pnmi": "PNMI",
}


def probe_rows(runs: Sequence[RunFolder]) -> list[Row]:
    """Rows of all probes of the runs, one group for each kind of label.

    The better encoder is marked if the probes have read the same utterances, and if it is better by
    more than the spread of the seeds.
    """
    rows: list[Row] = []
    for of in dict.fromkeys(probe.of for run in runs for probe in run.probes):
        probes = [probe_of(run, of) for run in runs]
        there = [probe for probe in probes if probe is not None]
        mark = len(there) > 1 and same_test(there)
        rows += _accuracy_rows(of, probes, mark) + _abx_rows(of, probes, mark)
        rows += _code_rows(of, probes)
    return rows


def probe_of(run: RunFolder, of: str) -> Probe | None:
    """The probe of a run that reads a kind of label; rather of its end than of all checkpoints."""
    found = [probe for probe in run.probes if probe.of == of]
    return min(found, key=lambda probe: len(probe.steps), default=None)


def _accuracy_rows(of: str, probes: Sequence[Probe | None], mark: bool) -> list[Row]:
    group = f"Probe of {of}, accuracy"
    names = dict.fromkeys([LOG_MEL, FRONT_END, *ENCODERS])
    rows = []
    for name in names:
        found = [_accuracy(probe, name) for probe in probes]
        rows.append(Row(group, name, cells_of(found, _with_spread)))
        if name == PRETRAINED:
            best = _clearly_best(found) if mark else frozenset()
            rows[-1] = rows[-1]._replace(best=best)
            rows.append(Row(group, "  chosen layer", cells_of(found, lambda row: str(row.layer))))
    majority = [None if probe is None else probe.majority for probe in probes]
    return [*rows, Row(group, "commonest label", cells_of(majority, percent))]


def _accuracy(probe: Probe | None, name: str) -> Accuracy | None:
    if probe is None:
        return None
    return probe.pretrained if name == PRETRAINED else probe.accuracies.get(name)


def _with_spread(row: Accuracy) -> str:
    return f"{100 * row.mean:.1f} +- {100 * row.spread:.1f} %"


def _clearly_best(found: Sequence[Accuracy | None]) -> frozenset[int]:
    best = best_of([None if row is None else row.mean for row in found])
    known = sorted((row for row in found if row is not None), key=lambda row: -row.mean)
    if not best or known[0].mean - known[1].mean <= max(known[0].spread, known[1].spread):
        return frozenset()
    return best


def _abx_rows(of: str, probes: Sequence[Probe | None], mark: bool) -> list[Row]:
    """The lowest error of the layers, and those of what has no layers."""
    rows = []
    for kind, name in KINDS.items():
        of_runs = [{} if probe is None else probe.abx.get(kind, {}) for probe in probes]
        for represented in dict.fromkeys(key for errors in of_runs for key in errors):
            lowest = [
                min(errors[represented]) if represented in errors else None for errors in of_runs
            ]
            best = best_of(lowest, highest=False) if mark and represented == PRETRAINED else ()
            label = f"{represented}, best layer" if represented in ENCODERS else represented
            group = f"ABX error of {of}, {name}"
            rows.append(Row(group, label, cells_of(lowest, percent), frozenset(best)))
    return rows


def _code_rows(of: str, probes: Sequence[Probe | None]) -> list[Row]:
    group = f"Codes and {of}"
    return [
        Row(
            group,
            label,
            cells_of((None if p is None else p.codes.get(key) for p in probes), "{:.3f}".format),
        )
        for key, label in CODES.items()
    ]
