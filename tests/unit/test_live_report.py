"""The report of a run that goes on: it keeps to its time, and no fault of it ends the run."""

import errno
import json
import os

import numpy as np
import pytest

from brainquant.monitoring import live_report
from brainquant.monitoring.live_report import SHARE, LiveReport

COUNTS = np.array([[6, 2, 0, 0]])
LINE = {"step": 40, "stage": "valid", "loss": 3.0, "unigram_loss": 4.0, "code_perplexity": [1.9]}


class Clock:
    """A clock that moves when it is told to."""

    now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(live_report, "time", clock)
    return clock


@pytest.fixture
def report(tmp_path, clock, monkeypatch):
    """Draws a page in 0.2 s and a picture in 2 s of that clock; ``drawn`` has their names."""
    (tmp_path / "metrics.jsonl").write_text(json.dumps(LINE) + "\n")
    report = LiveReport(str(tmp_path), str(tmp_path / "metrics.jsonl"), "<my run>")
    report.drawn = []

    def takes(name, seconds, call):
        def draw(*arguments):
            clock.now += seconds
            report.drawn.append(name)
            return call(*arguments)

        return draw

    replace_text = takes("page", 0.2, live_report.replace_text)
    monkeypatch.setattr(live_report, "replace_text", replace_text)
    plot = takes("picture", 2.0, lambda *arguments: open(arguments[2], "w").close())
    monkeypatch.setattr(live_report, "plot_report", plot)
    return report


def test_renewing_takes_no_more_than_its_share_of_the_time(report, clock):
    begun, training = clock.now, 0.0
    for _ in range(1000):  # validations
        clock.now += 7.0
        training += 7.0
        report.renew(COUNTS)
        spent = clock.now - begun - training
        first = 0.2 + 2.0  # of which nobody knew how long they take
        assert spent <= 2 * SHARE * (clock.now - begun) + first
    assert report.drawn.count("page") > 80 and report.drawn.count("picture") > 7


def test_the_last_page_says_so_and_comes_after_the_picture(report, tmp_path, clock):
    clock.now += 100
    report.renew(COUNTS)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Step 40, written at" in page and "goes on" in page and "&lt;my run&gt;" in page
    assert "codes have collapsed at step 40" in page and "2 of 4 codes were never" in page
    assert not report.is_final()
    report.draw_last(COUNTS)
    assert report.drawn == ["page", "picture", "page"] and report.is_final()
    assert "finished" in (tmp_path / "report.html").read_text("utf-8")
    assert sorted(os.listdir(tmp_path)) == ["metrics.jsonl", "report.html", "report.png"]


def test_a_run_without_codes_has_a_page_and_no_picture(report, tmp_path):
    line = {"step": 40, "stage": "valid", "loss": 3.0, "cer": 20.0, "wer": 55.5}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    report.draw_last(None)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert report.drawn == ["page"] and "55.5" in page and 'id="health"' not in page


@pytest.mark.parametrize(
    "error, told",
    [
        (ZeroDivisionError("by zero"), "the report was not drawn (ZeroDivisionError: by zero)"),
        (MemoryError(), "the report was not drawn (MemoryError: )"),
        (OSError(errno.ENOSPC, "full"), "no space for the report (full); make space"),
        (PermissionError(errno.EACCES, "no"), "the report was not drawn (PermissionError: "),
    ],
)
def test_a_fault_of_drawing_is_one_warning_for_each_file(
    report, clock, monkeypatch, caplog, error, told
):
    def fail(*_):
        raise error

    monkeypatch.setattr(live_report, "plot_report", fail)
    monkeypatch.setattr(live_report, "curve_sections", fail)
    for _ in range(3):
        clock.now += 10_000
        report.renew(COUNTS)
    report.draw_last(COUNTS)
    texts = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(texts) == 2 and all(told in text for text in texts)
    assert all("The run continues" in text for text in texts) and not report.is_final()
    monkeypatch.undo()
    report.draw_last(None)  # the next start of the run
    assert report.is_final()
