"""Runs that are stopped, or lose their launcher, a rank or a worker, leave no process behind."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc"),
]
ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "ToySpeech"
ENDLESS = ["--optimizer_step_limit", 100000, "--number_of_epochs", 10000, "--log_interval", 1]
ENDLESS += ["--warmup_steps", 2, "--num_workers", 2]
STATUS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 143}
# A run that stays for a long time in the phase that PHASE names, after a line on stdout.
SLOW = """
import os, time
import brainquant
from brainquant.brains import BestRQBrain
from brainquant.data.prepare import in_threads
from brainquant.monitoring import live_report

def slow(phase):
    if os.environ["PHASE"] == phase:
        print("phase", phase, flush=True)
        for _ in range(600):
            time.sleep(0.1)

def prepare():
    list(in_threads(lambda n: n or slow("preparation"), range(20), num_workers=4, unit="file"))

def evaluate(brain, hparams):
    slow("evaluation")
    open(f"{brain.run_log.folder}/evaluated", "w").close()

plot_report = live_report.plot_report
live_report.plot_report = lambda *a, **k: (slow("report"), plot_report(*a, **k))

fit = brainquant.RandomProjectionQuantizer.fit
brainquant.RandomProjectionQuantizer.fit = lambda *a: (slow("fit of the quantiser"), fit(*a))

class SlowBrain(BestRQBrain):
    def compute_forward(self, batch, stage):
        if os.environ["PHASE"] == "validation" and stage.name == "VALID":
            print("phase validation", flush=True)
            time.sleep(0.5)
        if stage.name == "TRAIN" and self.optimizer_step == 2:
            slow("training")
        return super().compute_forward(batch, stage)
"""


@pytest.fixture
def left(tmp_path):
    """Finds the processes of this test: their environment holds its folder."""

    def left():
        found = set()
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if f":{tmp_path}\0".encode() in environ.read_bytes():
                    found.add(int(environ.parent.name))
        return found

    yield left
    for pid in left():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def seconds_until_none(left, limit=60):
    began = time.monotonic()
    while processes := left():
        assert time.monotonic() - began < limit, [
            Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes
        ]
        time.sleep(0.1)
    return time.monotonic() - began


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_step(process, tmp_path, step=3):
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text("utf-8").splitlines()) < step:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize(
    "phase, names",
    [
        ("preparation", ["SIGINT", "SIGHUP"]),
        ("fit of the quantiser", ["SIGINT", "SIGTERM"]),
        ("validation", ["SIGINT", "SIGHUP"]),
        ("report", ["SIGTERM", "SIGUSR1"]),
        ("evaluation", ["SIGINT", "SIGHUP"]),
    ],
)
def test_a_signal_in_each_phase_ends_the_run_with_one_line(
    start_recipe, run_recipe, left, tmp_path, fault, phase, names
):
    (tmp_path / "slow.py").write_text(SLOW)
    whitened = ROOT / "hparams/quantisers/whitened_projection.yaml"
    options = ["--brain_class", "!name:slow.SlowBrain", "--num_workers", 2]
    options += ["--make_quantiser", f"!include:{whitened}", "--optimizer_step_limit", 3]
    keys = {"prepare": "!name:slow.prepare", "evaluate": "!name:slow.evaluate"}
    for name in names:
        process = start_recipe("best_rq", *options, output=name, PHASE=phase, **keys)
        while f"phase {phase}" not in (line := process.stdout.readline()):
            assert line, process.communicate()
        os.killpg(process.pid, getattr(signal, name))
        began = time.monotonic()
        shown = "".join(process.communicate(timeout=60))
        assert process.returncode == STATUS[name], shown
        (line,) = re.findall(f".*Stopped by {name}.*", shown)
        assert "Traceback" not in shown and time.monotonic() - began < 30
        assert ("saved in" in line) == (phase == "validation")
        assert not left()
        files = [str(path) for path in (tmp_path / name).rglob("*") if path.is_file()]
        assert not [path for path in files if "tmp" in path.removeprefix(str(tmp_path))], files
        fault(
            injected=f"{name} to all processes of a run in its {phase}",
            expected=f"one line, exit status {STATUS[name]}, nothing left",
            seen=line[-60:],
        )
    run_recipe("best_rq", *options, output=name, PHASE="none", **keys)
    for done in ("report.png", "evaluated"):
        assert (tmp_path / name / done).exists()


COMMANDS = {
    "kmeans": f"{RECIPE}/hparams/best_rq.yaml --data_folder {{corpus}} --prepare null "
    "--output_folder {out}/run --num_workers 2 --frames 1000000000 --clusters 8 --output {out}/k",
    "shards": "{corpus}/train.csv --data_folder {corpus} --output {out}/shards --num_workers 2",
}


@pytest.mark.parametrize("to_all", [True, False])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_ends_a_command_with_one_line(
    start_program, corpus, left, tmp_path, fault, command, to_all
):
    (tmp_path / "slow.py").write_text("""
import time
import brainquant.data.shards
read = brainquant.data.shards._read
brainquant.data.shards._read = lambda row: time.sleep(0.2) or read(row)
from brainquant.cli import main
main()
""")
    paths = {"corpus": str(corpus).replace(" ", "\0"), "out": tmp_path}
    arguments = [a.format(**paths).replace("\0", " ") for a in COMMANDS[command].split()]
    process = start_program(
        tmp_path / "slow.py", command, *arguments, path=[tmp_path], start_new_session=True
    )
    while len(children(process.pid)) < 1 + (command == "kmeans"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    time.sleep(1)
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert errors.count("Stopped by SIGINT") == 1 and not left()
    assert not (tmp_path / "k").exists() and not list(tmp_path.glob("k.*"))
    fault(
        injected=f"SIGINT to brainquant {command}{', all its processes' * to_all}",
        expected="one line, exit status 130, nothing left",
        seen=errors.strip().splitlines()[-1],
    )


def test_a_second_ctrl_c_ends_a_long_step_at_once(start_recipe, left, tmp_path, fault):
    (tmp_path / "slow.py").write_text(SLOW)
    options = ["--brain_class", "!name:slow.SlowBrain", *ENDLESS]
    process = start_recipe("best_rq", *options, PHASE="training")
    while "phase training" not in process.stdout.readline():
        pass
    for _ in range(2):
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(1)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert "Stopped by SIGINT at once" in errors and not left()
    fault(
        injected="SIGINT twice in a step that does not end",
        expected="exit status 130 at once, no worker left",
        seen=errors.strip().splitlines()[-1],
    )


def test_a_run_whose_reader_is_gone_saves_all_the_same(start_recipe, left, tmp_path, fault):
    process = start_recipe("best_rq", *ENDLESS)
    wait_for_step(process, tmp_path)
    process.stdout.close()
    process.stderr.close()  # as if Ctrl-C had ended a tee
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130 and not left()
    process.stdout = process.stderr = None
    log = (tmp_path / "run" / "log.txt").read_text("utf-8")
    assert "Stopped by SIGINT after step" in log and "saved in" in log
    fault(
        injected="Ctrl-C to a run and to the tee that reads its output",
        expected="a checkpoint, exit status 130",
        seen=re.findall("Stopped by SIGINT after step", log)[0],
    )


def test_a_run_whose_terminal_is_closed_saves(start_recipe, left, tmp_path, fault, monkeypatch):
    popen = subprocess.Popen
    master, slave = pty.openpty()

    def in_terminal(command, **options):
        # The first process of a session that opens a terminal gets its SIGHUP.
        shell = ["sh", "-c", f'exec "$@" <{os.ttyname(slave)} >&0 2>&0', "sh", *command]
        return popen(shell, **{**options, "stdout": None, "stderr": None})

    monkeypatch.setattr(subprocess, "Popen", in_terminal)
    process = start_recipe("best_rq", *ENDLESS)
    metrics = tmp_path / "run" / "metrics.jsonl"
    os.set_blocking(master, False)
    while not metrics.exists() or len(metrics.read_text("utf-8").splitlines()) < 3:
        assert process.poll() is None
        with suppress(BlockingIOError):
            os.read(master, 1 << 16)
        time.sleep(0.02)
    os.close(slave)
    os.close(master)
    assert process.wait(60) == 129 and not left()
    assert "Stopped by SIGHUP after step" in (tmp_path / "run" / "log.txt").read_text("utf-8")
    fault(
        injected="the terminal of a run is closed",
        expected="a checkpoint, exit status 129",
        seen="that",
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_is_killed_ends_the_run_with_one_line(
    start_recipe, left, tmp_path, fault, number
):
    process = start_recipe("best_rq", *ENDLESS)
    wait_for_step(process, tmp_path)
    worker = children(process.pid)[0]
    os.kill(worker, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in errors
    (line,) = re.findall("error: .*", errors)
    assert f"(process {worker}) was killed by {number.name}; the last clip that it" in line
    assert not left()
    fault(
        injected=f"{number.name} to a loader's worker",
        expected="one line with process, signal and clip; exit status 1",
        seen=line,
    )


ORDERS = {
    "INT": True, "TERM": True, "HUP": True, "INT TERM": True, "INT INT": True,
    "INT INT INT": True, "HUP TERM INT": True, "STOP worker, TERM": True, "KILL": True,
    "INT KILL": True, "STOP worker, KILL": True, "KILL rank": False, "STOP rank, TERM": False,
    "STOP rank, KILL": True, "STOP worker, KILL rank": False, "INT worker, HUP rank": True,
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
def test_of_two_ranks_nothing_is_left_whatever_the_order(
    start_recipe, left, tmp_path, fault, order
):
    process = start_recipe("best_rq", *ENDLESS, ranks=2)
    wait_for_step(process, tmp_path)
    rank = children(process.pid)[0]
    processes = {"rank": rank, "worker": children(rank)[0], "": process.pid}
    for part in order.split(", "):
        names, _, target = re.fullmatch(r"([A-Z ]+?)( (worker|rank))?", part).groups()
        for name in names.split():
            os.kill(processes[target or ""], getattr(signal, f"SIG{name}"))
            time.sleep(0.3)
    errors = process.communicate(timeout=90)[1]
    seconds = seconds_until_none(left)
    saved = "after step" in (tmp_path / "run" / "log.txt").read_text("utf-8")
    assert process.returncode != 0 and saved == ORDERS[order], errors[-3000:]
    fault(
        injected=f"{order} to a torchrun of 2 ranks with 2 workers each",
        expected="no process is left after a minute" + ", a checkpoint" * ORDERS[order],
        seen=f"none {seconds:.0f} s after torchrun, checkpoint: {saved}",
    )


@pytest.mark.parametrize("when", ["in the training", "while its ranks import modules"])
def test_the_same_command_goes_on_where_a_killed_launcher_has_left_ranks(
    start_recipe, run_recipe, left, tmp_path, fault, when
):
    process = start_recipe("best_rq", *ENDLESS, ranks=2)
    if when == "in the training":
        wait_for_step(process, tmp_path)
    else:
        while len(children(process.pid)) < 2:
            time.sleep(0.01)
    process.kill()
    process.wait()
    options = [*ENDLESS, "--optimizer_step_limit", 4]
    again = run_recipe("best_rq", *options, ranks=2)
    shown = again.stdout + again.stderr
    assert "Traceback" not in shown
    # It waits for the lock if the old ranks last longer than its imports: see test_run_lock.
    assert when != "in the training" or "Loading a checkpoint" in shown
    seconds_until_none(left)
    fault(
        injected=f"SIGKILL to torchrun {when}, and the same command at once",
        expected="it goes on from the checkpoint of the ranks that were left",
        seen="exit status 0, no process left",
    )


def test_a_rank_that_starts_when_its_launcher_has_died_does_not_wait_for_hours(
    start_recipe, left, fault
):
    torchrun = {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "none",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9",
    }  # fmt: skip
    process = start_recipe("best_rq", *ENDLESS, **torchrun)
    _, errors = process.communicate(timeout=90)
    (line,) = re.findall("error on rank 0: .*", errors)
    assert process.returncode == 1 and "torchrun does not answer at 127.0.0.1:9" in line
    fault(
        injected="a rank that starts when its torchrun has died",
        expected="one line within a minute",
        seen=line,
    )
