"""Signals that ask a run to stop are noted, and wait until it looks."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from brainquant.training.signals import EXIT_STATUS, StopSignals


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_is_noted_and_the_first_counts(name):
    with StopSignals() as signals:
        assert signals.received is None
        for number in (getattr(signal, name), signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
            assert signals.received == name


def test_the_handlers_before_are_there_again(request):
    came = []
    former = signal.signal(signal.SIGUSR1, lambda *arguments: came.append(1))
    request.addfinalizer(lambda: signal.signal(signal.SIGUSR1, former))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), StopSignals():
        os.kill(os.getpid(), signal.SIGUSR1)
        raise KeyError
    assert not came and signal.getsignal(signal.SIGTERM) == before
    os.kill(os.getpid(), signal.SIGUSR1)
    assert came


def test_in_another_thread_nothing_happens():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def run():
        with StopSignals() as signals:
            seen.append((signal.getsignal(signal.SIGTERM), signals.received))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(before, None)]


def test_a_process_finishes_its_step_and_ends_as_if_it_was_terminated():
    program = """
import sys, time
from brainquant.training.signals import EXIT_STATUS, StopSignals
with StopSignals() as signals:
    print("begun", flush=True)
    for step in range(600):
        time.sleep(0.1)
        if signals.received:
            print(signals.received)
            raise SystemExit(EXIT_STATUS)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        text=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    with process:
        assert process.stdout.readline() == "begun\n"
        process.terminate()
        assert process.stdout.read() == "SIGTERM\n"
    assert process.returncode == EXIT_STATUS == 143
