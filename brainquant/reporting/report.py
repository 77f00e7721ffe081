"""One page about several runs: their results, curves and codes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timezone

from .. import __version__
from ..data.alignments import find_alignments
from ..data.prepare import write_whole
from ..monitoring.page import LoggedRun, curve_sections, render_page
from ..training.device_options import check_device
from ..training.resolve import HPARAMS
from .code_sections import code_sections
from .run_sections import run_sections
from .several_runs import read_runs

LIVE = "report.html"  # a run renews it in its own folder
START = b"<!doctype html>"


def write_report(
    folders: Sequence[str],
    output: str,
    *,
    audio: int = 5,
    alignments: str | None = None,
    device: str = "cpu",
) -> int:
    """Writes one HTML file about runs, which needs no network.

    What a run lacks, or what is damaged in it, becomes a line of the page.

    Arguments
    ---------
    folders : sequence of str
        The ``output_folder`` of each run.
    output : str
        The file; an earlier page of this name is replaced in one step.
    audio : int
        Segments to hear of each code; 0 for none.
    alignments : str or None
        Folder of phone alignments, ``<ID>.tsv`` at any depth.
    device : str
        Where the codes are computed.

    Returns
    -------
    size : int
        Bytes of the page.

    Raises
    ------
    ValueError
        If no folder is that of a run, one is given twice, the output would replace something else,
        or this machine does not have the device.
    """
    check_page(output)
    check_device({"device": device})
    paths = None if alignments is None else find_alignments(alignments)
    runs, remarks = read_runs(folders)
    logged = [LoggedRun(run.name, run.points, run.verdict) for run in runs]
    *health, curves = curve_sections(logged)
    sections = [
        *health,
        *run_sections(runs, remarks),
        curves,
        *code_sections(
            [(run.name, run.folder) for run in runs], device=device, audio=audio, alignments=paths
        ),
    ]
    names = ", ".join(run.name for run in runs)
    written = f"Written at {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC by brainquant"
    html = render_page(f"Report of {names}", sections, subtitle=f"{written} {__version__}")
    page = html.encode("utf-8", "replace")
    write_whole(output, page)
    return len(page)


def check_page(output: str) -> None:
    """Raises a ValueError if a report would replace another file.

    Example
    -------
    >>> path = getfixture("tmp_path") / "weights.pt"
    >>> _ = path.write_bytes(b"PK")
    >>> check_page(str(path))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: --output ...weights.pt is a file, but no page; give another path
    """
    folder, name = os.path.split(os.path.abspath(output))
    if name == LIVE and os.path.isfile(os.path.join(folder, HPARAMS)):
        raise ValueError(
            f"--output {output} is the page that the run in this folder renews itself; give "
            f"another path"
        )
    if os.path.isfile(output):
        with open(output, "rb") as file:
            if file.read(len(START)).lower() != START:
                raise ValueError(f"--output {output} is a file, but no page; give another path")
