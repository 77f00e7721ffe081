"""A rank notices that its launcher has died, stops as after a signal, and frees its folder."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brainquant.processes.family import is_running

# A launcher that starts a rank in a session of its own, as torchrun does, and waits for it.
LAUNCHER = """
import subprocess, sys
with subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True) as rank:
    print(rank.pid, flush=True)
"""
RANK = """
import sys, time
from brainquant.processes import launcher
from brainquant.errors import one_line_errors
from brainquant.processes.signals import Stopped, StopSignals

launcher.SECONDS_TO_END = 1
how = "{how}"
if how == "imports":  # modules that take long to import
    time.sleep(1)
with one_line_errors():
    print("begun", flush=True)
    if how == "trains":
        with StopSignals() as signals:
            while not signals.received:
                time.sleep(0.01)
            print("saved", flush=True)
            raise Stopped(signals.received)
    try:
        time.sleep(60)
    finally:
        if how == "hangs":
            time.sleep(60)
"""


@pytest.fixture
def launch():
    """Starts a launcher with a rank, and ends both after the test."""
    started = []

    def launch(how, torchrun=True):
        paths = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        launcher = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, RANK.format(how=how)],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **paths, **({"TORCHELASTIC_RUN_ID": "test"} if torchrun else {})},
        )
        rank = int(launcher.stdout.readline())
        started.append((launcher, rank))
        if how != "imports":
            assert launcher.stdout.readline() == "begun\n"
        else:
            time.sleep(0.5)
        return launcher, rank

    yield launch
    for launcher, rank in started:
        launcher.kill()
        launcher.communicate()
        if is_running(rank):
            os.kill(rank, signal.SIGKILL)


def shown_until_it_has_ended(launcher, rank):
    """Waits for the end of the rank; returns what it wrote to stdout and stderr."""
    shown, errors = launcher.communicate(timeout=30)
    until = time.monotonic() + 30
    while is_running(rank):
        assert time.monotonic() < until
        time.sleep(0.01)
    return shown, errors.strip().split("\n\n")


@pytest.mark.parametrize("how", ["trains", "prepares", "imports"])
def test_a_rank_stops_as_after_a_signal(launch, how):
    launcher, rank = launch(how)
    launcher.kill()
    shown, lines = shown_until_it_has_ended(launcher, rank)
    end = f"the end of torchrun (process {launcher.pid})"
    assert lines[0] == f"{end}: this rank stops as after SIGTERM"
    if how == "trains":
        assert (shown, lines[1:]) == ("saved\n", [])
    else:
        assert lines[1:] == [f"Stopped by SIGTERM, after {end}"]


def test_a_rank_that_cannot_stop_is_ended(launch):
    launcher, rank = launch("hangs")
    launcher.kill()
    _, lines = shown_until_it_has_ended(launcher, rank)
    assert lines[1:] == ["error: the rank could not stop within 1 s; ended at once"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells a stopped process")
def test_a_rank_that_is_stopped_goes_on_to_its_end(launch):
    launcher, rank = launch("trains")
    os.kill(rank, signal.SIGSTOP)
    launcher.kill()
    assert shown_until_it_has_ended(launcher, rank)[0] == "saved\n"


def test_without_torchrun_a_parent_may_end(launch):
    launcher, rank = launch("trains", torchrun=False)
    launcher.kill()
    launcher.wait()
    time.sleep(1.5)  # it checks once a second
    assert is_running(rank)
    os.kill(rank, signal.SIGTERM)
    assert shown_until_it_has_ended(launcher, rank) == ("saved\n", [""])


def test_a_zombie_is_not_running():
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_running(process.pid)
    process.wait()
    assert not is_running(process.pid)
