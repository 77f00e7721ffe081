"""One page about several runs."""

from __future__ import annotations

import argparse

from .command import AddCommand, check_output


def run(
    runs: list[str], output: str, audio: int, no_audio: bool, alignments: str | None, device: str
) -> None:
    """Writes the page."""
    check_output("--output", output)
    from ..reporting.report import write_report

    audio = 0 if no_audio else audio
    size = write_report(runs, output, audio=audio, alignments=alignments, device=device)
    print(f"{output}: {size / 1e6:.1f} MB; open it in a browser")


def count(text: str) -> int:
    """A number of segments, for argparse.

    Example
    -------
    >>> count("5")
    5
    """
    if not 1 <= (number := int(text)) <= 20:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to 20; for none, --no_audio")
    return number


def add(command: AddCommand) -> None:
    """Adds the command to the parser."""
    added = command(
        run,
        "report",
        "One HTML file about runs: results, curves, what differs, and their codes, to see and to "
        "hear. It opens from disk and needs no network.",
    )
    option = added.add_argument
    option("runs", metavar="RUN", nargs="+", help="output_folder of a run")
    option(
        "--output", metavar="HTML", default="report.html", help="the file to write (%(default)s)"
    )
    option(
        "--audio",
        metavar="N",
        type=count,
        default=5,
        help="segments to hear of each of the 200 commonest codes (%(default)s)",
    )
    option("--no_audio", action="store_true", help="no sounds: a page of at most 300 kB for a run")
    option(
        "--alignments",
        metavar="FOLDER",
        help="phone alignments, <ID>.tsv at any depth: phones beside the codes",
    )
    option("--device", default="cpu", help="device of the models (%(default)s)")
