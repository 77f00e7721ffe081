"""Runs beside each other: what differs, what they have come to, and what may be compared."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

from .columns import BETTER, WIDTH, lay_out
from .comparable import may_mark, notes, short_value
from .differences import what_differs
from .facts import at_step, common_step, facts_of, point_facts
from .results import result_rows
from .rows import Row
from .run_folder import RunFolder

NO_BREAK = "\u00a0"


def compare_runs(runs: Sequence[RunFolder], remarks: Sequence[str] = ()) -> dict[str, Any]:
    """What is known of runs, for a program.

    Arguments
    ---------
    runs : sequence of RunFolder
        Of ``read_runs``.
    remarks : sequence of str
        Those of ``read_runs``: folders that could not be read.

    Returns
    -------
    facts : dict
        Values of JSON. ``runs`` has those of each run, see ``facts_of``, and ``at_common_step``;
        ``differences`` the keys that differ, a value for each run; ``comparable`` says of "loss",
        "gain" and "units" whether they compare, and ``notes`` why not.
    """
    common = common_step(runs)
    facts = [facts_of(run) for run in runs]
    for of_run, run in zip(facts, runs):
        of_run["at_common_step"] = common and (point_facts(at_step(run, common[0])) or None)
    return {
        "runs": facts,
        "common_step": common and common[0],
        "differences": what_differs(runs),
        "comparable": may_mark(runs),
        "notes": [*notes(runs), *remarks],
    }


def format_comparison(runs: Sequence[RunFolder], remarks: Sequence[str] = ()) -> str:
    """The same for a reader, in at most 80 columns; marks what is better where that can be said.

    Arguments
    ---------
    runs, remarks
        As for ``compare_runs``.
    """
    rows = result_rows(runs)
    lines = lay_out([run.name for run in runs], [*difference_rows(runs), *rows])
    if any(row.best for row in rows):
        lines += ["", *_text(f"{BETTER.strip()} better, as far as one run each can show")]
    lines += ["", "Health"]
    for run in runs:
        lines += _text(f"  {run.name}: {run.verdict[0]}")
    found = [*notes(runs), *(f"{run.name}: {remark}" for run in runs for remark in run.remarks)]
    if found := [*found, *remarks]:
        lines += ["", "Notes"]
        for note in found:
            lines += _text(f"  {note}")
    return "\n".join(lines)


def difference_rows(runs: Sequence[RunFolder]) -> list[Row]:
    """What differs, as rows; classes without their modules, if they differ without them."""
    group = "What differs"
    rows = []
    for key, values in what_differs(runs).items():
        cells = [short_value(value) for value in values]
        if len(set(cells)) == 1:
            cells = ["-" if value is None else value for value in values]
        rows.append(Row(group, key, cells))
    if not rows and sum(bool(run.values) for run in runs) > 1:
        rows.append(Row("What differs: nothing", "", [""] * len(runs)))
    return rows


def _text(line: str) -> list[str]:
    kept = re.sub(r"(?<=\d) (?=%|nats|steps)", NO_BREAK, line)  # a number with its unit
    lines = textwrap.wrap(kept, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return [line.replace(NO_BREAK, " ") for line in lines]
