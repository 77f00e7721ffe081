"""Compares runs."""

from __future__ import annotations

import json
import sys

from .command import AddCommand


def run(runs: list[str], as_json: bool) -> None:
    """Prints runs beside each other, or one JSON object about them."""
    from ..reporting.compare import compare_runs, format_comparison
    from ..reporting.several_runs import read_runs

    read, remarks = read_runs(runs)
    if len(read) < 2 <= len(runs):
        raise ValueError("; ".join(remarks))
    if as_json:
        print(json.dumps(compare_runs(read, remarks), indent=1, allow_nan=False))
        return
    encoding = sys.stdout.encoding or "utf-8"
    print(format_comparison(read, remarks).encode(encoding, "replace").decode(encoding))


def add(command: AddCommand) -> None:
    """Adds the command to the parser."""
    added = command(
        run,
        "compare",
        "Runs beside each other: what differs in their configuration, loss against its reference, "
        "probes, codes, throughput, time, health. Also of runs that go on; it changes nothing.",
    )
    option = added.add_argument
    option("runs", metavar="RUN", nargs="+", help="output_folder of a run; two or more to compare")
    option(
        "--json", dest="as_json", action="store_true", help="print one JSON object, for a program"
    )
