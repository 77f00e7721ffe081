"""A signal ends a program with one line; a training first finishes its step."""

import functools
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from brainquant.processes.signals import StopSignals

NAMES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 143}
# A program that imports nothing heavy and waits in each of its phases.
PROGRAM = """
import os, sys, time
from brainquant.errors import one_line_errors
from brainquant.processes.signals import Stopped, StopSignals

def work(what):
    print(what, flush=True)
    sys.stdin.readline()

with one_line_errors():
    try:
        work("preparing")
    finally:
        print("cleaned up", flush=True)
    with StopSignals() as signals:
        for step in range(3):
            work(f"step {step}")
            if signals.received:
                print("saved", flush=True)
                raise Stopped(signals.received)
    work("reporting")
print("done")
"""


@pytest.fixture
def start(start_program):
    """Starts the program."""
    return functools.partial(start_program, "-c", PROGRAM)


@pytest.fixture(autouse=True)
def heed_signals():
    """Stops ignoring SIGINT, which a shell makes a background process ignore."""
    former = {number: signal.getsignal(number) for number in map(signal.Signals.__getitem__, NAMES)}
    for number in former:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


def reach(process, phase):
    """Lets the program run until a phase."""
    while (line := process.stdout.readline().strip()) != phase:
        assert line, process.communicate()
        if line not in ("cleaned up", "saved"):
            process.stdin.write("\n")
            process.stdin.flush()


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_is_noted_and_the_first_counts(name):
    with StopSignals() as signals:
        assert signals.received is None
        for number in (getattr(signal, name), signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
            assert signals.received == name


def test_the_handlers_before_are_there_again(request):
    came = []
    former = signal.signal(signal.SIGUSR1, lambda *arguments: came.append(1))
    request.addfinalizer(lambda: signal.signal(signal.SIGUSR1, former))
    before = [signal.getsignal(getattr(signal, name)) for name in NAMES]
    with pytest.raises(KeyError), StopSignals():
        os.kill(os.getpid(), signal.SIGUSR1)
        raise KeyError
    assert not came and [signal.getsignal(getattr(signal, name)) for name in NAMES] == before
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


@pytest.mark.parametrize("phase", ["preparing", "reporting"])
@pytest.mark.parametrize("name", NAMES)
def test_a_signal_ends_a_program_with_one_line(start, name, phase):
    process = start()
    reach(process, phase)
    process.send_signal(getattr(signal, name))
    shown, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.strip()) == (NAMES[name], f"Stopped by {name}")
    assert phase != "preparing" or shown == "cleaned up\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_in_the_training_waits_for_the_step(start, name):
    process = start()
    reach(process, "step 1")
    process.send_signal(getattr(signal, name))
    if name == "SIGINT":  # so that nobody presses it again during a long step
        assert process.stderr.readline() == "\n"
        assert "after this step and a checkpoint; Ctrl-C once more" in process.stderr.readline()
    else:
        time.sleep(0.1)
    assert process.poll() is None
    shown, errors = process.communicate("\n", timeout=60)
    assert (process.returncode, shown, errors) == (NAMES[name], "saved\n", "")


@pytest.mark.parametrize("phase", ["preparing", "step 1"])
def test_ctrl_c_twice_ends_it_at_once(start, phase):
    process = start()
    reach(process, phase)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    shown, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "saved" not in shown and "Traceback" not in errors
    assert "SIGINT at once: the same command" in errors or phase == "preparing"


def test_what_a_launcher_sends_twice_at_a_time_is_one_signal(start, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    process = start()
    reach(process, "step 1")
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    shown, _ = process.communicate("\n", timeout=60)
    assert (process.returncode, shown) == (130, "saved\n")


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
def test_a_signal_that_nohup_or_a_script_has_ignored_stays_ignored(start, name):
    number = getattr(signal, name)
    process = start(preexec_fn=lambda: signal.signal(number, signal.SIG_IGN))
    for phase in ("preparing", "step 1", "reporting"):
        reach(process, phase)
        process.send_signal(number)
        time.sleep(0.05)
        process.stdin.write("\n")
        process.stdin.flush()
    assert process.communicate(timeout=60) == ("done\n", "") and process.returncode == 0


def test_while_modules_are_imported_there_is_no_traceback_either(start_program, tmp_path):
    # A slow module instead of torch, in the programs that users start.
    (tmp_path / "torch.py").write_text("import time\nprint('imports', flush=True)\ntime.sleep(60)")
    root = Path(__file__).resolve().parents[2]
    folders = [path.parent for path in root.glob("recipes/*/train.py")]
    recipes = sorted(path for folder in folders for path in folder.glob("*.py"))
    assert len(recipes) >= 5
    cli = ["-c", "from brainquant.cli import main; main()", "shards", "m.csv"]
    cli += ["--data_folder", "a", "--output", "b"]
    for arguments in [cli, *([path, "x.yaml"] for path in recipes)]:
        process = start_program(*arguments, path=[tmp_path])
        assert process.stdout.readline() == "imports\n", process.stderr.read()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().strip() == "Stopped by SIGINT"
        assert process.wait() == 130


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_has_gone_ends_nothing(start_program, stream):
    program = f"""
import sys
from brainquant.errors import one_line_errors
with one_line_errors():
    sys.stdin.readline()
    for _ in range(3):
        print("to nobody", file=sys.{stream}, flush=True)
    print("reached", file=sys.{"stderr" if stream == "stdout" else "stdout"})
"""
    process = start_program("-c", program)
    kept = process.stderr if stream == "stdout" else process.stdout
    getattr(process, stream).close()
    process.stdin.write("\n")
    process.stdin.close()
    assert kept.read() == "reached\n"
    assert process.wait(60) == 0
