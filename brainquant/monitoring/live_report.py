"""The report of a run, renewed while the run goes on: a page and a picture in its folder."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone

import numpy as np
from speechbrain.utils.logger import get_logger

from ..own_files import NO_SPACE, replace_text
from .health import verdict
from .page import LoggedRun, curve_sections, render_page
from .page.code_use import code_use_section
from .points import read_points
from .report import plot_report

logger = get_logger(__name__)

SHARE = 0.0025  # of the run's time, which renewing each of the two files may take
# Seconds that each file is expected to take the first time.
PAGE, PICTURE = "report.html", "report.png"
EXPECTED = {PAGE: 0.03, PICTURE: 1.5}
REFRESH_SECONDS = 30
RENEWS = b'id="renew"'  # only in the page of a run that goes on


class LiveReport:
    """Draws ``report.html`` and, where there are codes, ``report.png``.

    While the run goes on, a file is renewed only if all its drawings take less than 0.25 % of the
    time. At the end both are drawn. Whatever goes wrong costs one warning for each file: the run is
    worth more than its picture.

    Arguments
    ---------
    folder : str
        Where the files go.
    metrics_file : str
        The log points of the run.
    title : str
        Name of the run.
    warmup_steps : int
        As for ``health.verdict``.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> folder.join("metrics.jsonl").write('{"step": 5, "stage": "valid", "loss": 3.0}')
    >>> report = LiveReport(str(folder), str(folder.join("metrics.jsonl")), "my run")
    >>> report.renew(None)  # too early: it would take more than its share
    >>> report.is_final()
    False
    >>> report.draw_last(None)
    >>> report.is_final()
    True
    """

    def __init__(self, folder: str, metrics_file: str, title: str = "", warmup_steps: int = 0):
        self.folder = folder
        self.metrics_file = metrics_file
        self.title = title
        self.warmup_steps = warmup_steps
        self.warned: set[str] = set()
        self.start()

    def start(self) -> None:
        """The run begins, or goes on: counts its time from here."""
        self.began = time.perf_counter()
        self.expected = dict(EXPECTED)  # seconds of the next drawing of each file
        self.spent = dict.fromkeys(EXPECTED, 0.0)

    def renew(self, counts_GV: np.ndarray | None) -> None:
        """Draws the files whose share of the time allows it; on the main process only.

        Arguments
        ---------
        counts_GV : np.ndarray or None
            How often each code was a target in the run so far, (codebooks, codes). None: the run
            has no codes, and no picture.
        """
        for name in self._files(counts_GV):
            running = time.perf_counter() - self.began
            if self.spent[name] + self.expected[name] <= SHARE * running:
                self._draw(name, counts_GV, is_last=False)

    def draw_last(self, counts_GV: np.ndarray | None) -> None:
        """Draws both files of a finished run; see ``renew``. The page comes last: it says so."""
        for name in reversed(self._files(counts_GV)):
            if self._draw(name, counts_GV, is_last=True):
                logger.info(f"Report: {os.path.join(self.folder, name)}")

    def is_final(self) -> bool:
        """Whether the page is that of a finished run."""
        try:
            with open(os.path.join(self.folder, PAGE), "rb") as page:
                return RENEWS not in page.read()
        except OSError:
            return False

    def _files(self, counts_GV):
        return [PAGE] if counts_GV is None else [PAGE, PICTURE]

    def _draw(self, name, counts_GV, *, is_last):
        """Draws a file and notes how long it took; gives whether it worked."""
        path = os.path.join(self.folder, name)
        begun = time.perf_counter()
        try:
            if name == PAGE:
                replace_text(path, self._page(counts_GV, is_last))
            else:
                plot_report(self.metrics_file, counts_GV, path, self.title, self.warmup_steps)
        except Exception as error:
            self._warn(path, error)
            return False
        finally:
            self.expected[name] = time.perf_counter() - begun
            self.spent[name] += self.expected[name]
        return True

    def _warn(self, path, error):
        if path in self.warned:
            return
        self.warned.add(path)
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            logger.warning(
                f"{path}: no space for the report ({error.strerror}); make space on that disk or "
                f"in your quota. The run continues"
            )
        else:
            what = f"{type(error).__name__}: {error}"
            logger.warning(f"{path}: the report was not drawn ({what}). The run continues")
            logger.debug("The error:", exc_info=error)

    def _page(self, counts_GV, is_last):
        points = read_points(self.metrics_file)
        judged = ("", "unknown")
        if counts_GV is not None:
            judged = verdict(points, counts_GV, self.warmup_steps)
        name = os.path.basename(os.path.abspath(self.folder))
        sections = curve_sections([LoggedRun(name, points, judged)])
        if counts_GV is not None and counts_GV.any():
            sections.append(code_use_section(counts_GV))
        step = f"Step {points[-1]['step']:,.0f}" if points else "Before the first log point"
        now = datetime.now(timezone.utc)
        state = "the run is finished" if is_last else "renewed while the run goes on"
        return render_page(
            self.title or name,
            sections,
            subtitle=f"{step}, written at {now:%Y-%m-%d %H:%M:%S} UTC; {state}",
            refresh_seconds=None if is_last else REFRESH_SECONDS,
        )
