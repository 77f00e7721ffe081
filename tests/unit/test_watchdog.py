"""A run that hangs is ended, with the rank and the phase named."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from brainquant.training.watchdog import Watchdog, hang_text, ranks_to_blame

PROGRAM = """
import logging, os, signal, sys, time
import torch
from brainquant.training.watchdog import Watchdog

how, seconds = sys.argv[1], float(sys.argv[2])
open(f"{os.getpid()}.pid", "w").close()
logging.basicConfig(filename=how + ".log")
rank = int(os.environ.get("RANK", 0))
if how in ("reads", "stopped"):
    torch.distributed.init_process_group("gloo")
with Watchdog(seconds / 60) as watchdog:
    for step in range(5):
        watchdog.tick("reading a batch")
        if step == 4 and how == "alone":
            time.sleep(600)
        if step == 4 and rank == 1:
            time.sleep(seconds / 3 if how == "stopped" else 600)
            os.kill(os.getpid(), signal.SIGSTOP)
        watchdog.tick("a training step")
        if how in ("reads", "stopped"):
            torch.distributed.all_reduce(torch.ones(3))
    print("ticking", flush=True)
    for _ in range(10):
        until = time.process_time() + seconds / 6  # which stands still while this is stopped
        while time.process_time() < until:
            pass
        watchdog.tick("a training step")
"""
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
LINE = (
    r"error on rank (\d): the run hangs: (.*) \(host (.*), process (\d+)\) "
    r"was last seen at '(.*?)', \d+ s ago; look at that machine"
)


@pytest.fixture
def start(tmp_path):
    """Starts the program, alone or on two ranks, and takes care of its end."""
    (tmp_path / "program.py").write_text(PROGRAM, "utf-8")
    started = []

    def start(how, seconds, launcher=(), **variables):
        process = subprocess.Popen(
            [sys.executable, *launcher, "program.py", how, str(seconds)],
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
                **variables,
            },
        )
        started.append(process)
        return process

    yield start
    for path in tmp_path.glob("*.pid"):  # a rank that is stopped outlives torchrun
        with suppress(ProcessLookupError):
            os.kill(int(path.stem), signal.SIGKILL)
    for process in started:
        process.kill()
        process.communicate()


def test_a_process_that_hangs_ends_with_one_line_that_says_where(start, tmp_path):
    process = start("alone", 2)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = errors.strip().splitlines()
    where = rf"host {socket.gethostname()}, process {process.pid}"
    assert re.fullmatch(
        rf"error: the run hangs: rank 0 \({where}\) was last seen at 'reading a batch', \d+ s "
        r"ago; look at that machine, or set hang_minutes: higher than 0.0333333 if that may take "
        r"so long",
        line,
    )
    assert line in (tmp_path / "alone.log").read_text("utf-8")


def test_a_process_that_ticks_or_was_stopped_for_a_while_goes_on(start):
    process = start("ticks", 2)
    assert process.stdout.readline() == "ticking\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(3)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def test_all_ranks_end_and_name_the_one_that_hangs(start):
    process = start("reads", 3, TORCHRUN)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    lines = re.findall(f"^{LINE}", errors, re.MULTILINE)
    assert lines and all(line[1] == "rank 1" for line in lines)
    assert all(line[4] == "reading a batch" for line in lines)
    for pid in {int(line[3]) for line in lines}:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert "Signal 9" not in errors  # no rank had to be killed


def test_a_rank_that_is_stopped_is_blamed_by_the_others(start):
    process = start("stopped", 3, TORCHRUN)
    for text in process.stderr:
        if line := re.match(LINE, text):
            break
    reporter, blamed, _, pid, phase = line.groups()
    assert (reporter, blamed, phase) == ("0", "rank 1", "reading a batch")
    os.kill(int(pid), signal.SIGKILL)  # as torchrun does after 30 s
    process.communicate(timeout=60)
    assert process.returncode == 1


def test_without_a_store_a_rank_blames_itself(start):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = str(nobody.getsockname()[1])
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    process = start("alone", 1, MASTER_ADDR="127.0.0.1", MASTER_PORT=port, **variables)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = re.findall(f"^{LINE}", errors, re.MULTILINE)
    assert line[:2] == ("0", "rank 0") and line[3] == str(process.pid)


def test_of_ranks_that_are_equally_far_all_are_named():
    board = {rank: [7, "saving", time.time(), f"host{rank}", rank, True] for rank in range(3)}
    board[1][0] = 8
    assert ranks_to_blame(board) == [0, 2]
    text = hang_text({rank: board[rank] for rank in (0, 2)}, 10)
    assert "rank 0 (host host0, process 0) was last seen at 'saving', 0 s ago; rank 2 (host" in text
    board[2][5] = False  # inside no collective: the others may wait for it
    assert ranks_to_blame(board) == [2]
    board[2] = None
    assert ranks_to_blame(board) == [2]
    assert "rank 2 has not begun to train" in hang_text({2: None}, 10)


@pytest.mark.parametrize("minutes", [0, 0.0, None])
def test_there_is_no_watchdog_without_minutes(minutes):
    with Watchdog(minutes) as watchdog:
        watchdog.tick("a training step")
        assert "watchdog" not in {thread.name for thread in threading.enumerate()}
