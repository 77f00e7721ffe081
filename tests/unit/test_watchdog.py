"""The watchdog ends a run that hangs, and names the rank and the phase."""

import logging
import os
import re
import signal
import socket
import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from syscalls import fork

import brainquant.training.watchdog
from brainquant.training.watchdog import Watchdog, hang_text, ranks_to_blame

LINE = (
    r"error on rank (\d): the run hangs: (.*) \(host (.*), process (\d+)\) "
    r"was last seen at '(.*?)', \d+ s ago; look at that machine"
)


def train(how, seconds, rank, folder):
    """A training of five steps whose rank 1, or only rank, stops in the last one."""
    alone = how in ("hangs", "ticks")
    with Watchdog(seconds / 60) as watchdog:
        for step in range(5):
            watchdog.tick("reading a batch")
            if step == 4 and how == "hangs":
                time.sleep(600)
            if step == 4 and rank == 1:
                time.sleep(seconds / 3 if how == "stopped" else 600)
                os.kill(os.getpid(), signal.SIGSTOP)
            watchdog.tick("a training step")
            if not alone:
                torch.distributed.all_reduce(torch.ones(3))
        (folder / "ticking").touch()
        for _ in range(10):
            for _ in range(10):  # short sleeps: a stop lengthens only one of them
                time.sleep(seconds / 60)
            watchdog.tick("a training step")


class Child(NamedTuple):
    """A training in a child of this process."""

    pid: int
    errors: Path

    def exit_status(self):
        """Its exit status; negative for a signal. It has a minute to end."""
        until = time.monotonic() + 60
        while (status := os.waitpid(self.pid, os.WNOHANG)) == (0, 0):
            assert time.monotonic() < until
            time.sleep(0.01)
        return os.waitstatus_to_exitcode(status[1])


@pytest.fixture
def start(tmp_path):
    """Starts a training in a child. A fork has nothing to import, so it starts at once."""
    started = []

    def start(how, seconds, rank=0, store=None, **variables):
        errors = tmp_path / f"errors of rank {rank}"

        def child():
            os.environ.update(variables)
            os.dup2(os.open(errors, os.O_CREAT | os.O_WRONLY), 2)
            logging.basicConfig(filename=tmp_path / "log.txt", force=True)
            if store is not None:
                torch.distributed.init_process_group(
                    "gloo",
                    store=torch.distributed.TCPStore("127.0.0.1", store.port, is_master=False),
                    rank=rank,
                    world_size=2,
                    timeout=timedelta(seconds=60),
                )
            train(how, seconds, rank, tmp_path)

        started.append(Child(fork(child), errors))
        return started[-1]

    yield start
    for child in started:
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child.pid, 0)


@pytest.fixture
def start_two(start):
    """Starts a training on two ranks. This process has their store, as torchrun would."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2"}

    def start_two(how, seconds):
        return [
            start(how, seconds, rank, store, RANK=str(rank), LOCAL_RANK=str(rank), **address)
            for rank in range(2)
        ]

    return start_two


def test_a_process_that_hangs_ends_with_one_line_that_says_where(start, tmp_path):
    child = start("hangs", 0.6)
    assert child.exit_status() == 1
    (line,) = child.errors.read_text("utf-8").strip().splitlines()
    where = rf"host {socket.gethostname()}, process {child.pid}"
    assert re.fullmatch(
        rf"error: the run hangs: rank 0 \({where}\) was last seen at 'reading a batch', \d+ s "
        r"ago; look at that machine, or set hang_minutes: higher than 0.01 if that may take so "
        r"long",
        line,
    )
    assert line in (tmp_path / "log.txt").read_text("utf-8")


def test_a_process_that_ticks_or_was_stopped_for_a_while_goes_on(start, tmp_path):
    child = start("ticks", 1)
    while not (tmp_path / "ticking").exists():
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGSTOP)
    time.sleep(1.5)
    os.kill(child.pid, signal.SIGCONT)
    assert (child.exit_status(), child.errors.read_text("utf-8")) == (0, "")


def test_all_ranks_end_and_name_the_one_that_hangs(start_two):
    ranks = start_two("reads", 2)
    assert [rank.exit_status() for rank in ranks] == [1, 1]  # no rank had to be killed
    for number, rank in enumerate(ranks):
        (line,) = re.findall(f"^{LINE}", rank.errors.read_text("utf-8"), re.MULTILINE)
        assert line[:2] == (str(number), "rank 1") and line[4] == "reading a batch"
        assert line[3] == str(ranks[1].pid)


def test_a_rank_that_is_stopped_is_blamed_by_the_others(start_two):
    first, stopped = start_two("stopped", 2)
    assert first.exit_status() == 1
    (line,) = re.findall(f"^{LINE}", first.errors.read_text("utf-8"), re.MULTILINE)
    assert (line[0], line[1], line[4]) == ("0", "rank 1", "reading a batch")
    assert line[3] == str(stopped.pid) and stopped.errors.read_text("utf-8") == ""


def test_without_a_store_a_rank_blames_itself(start, monkeypatch):
    monkeypatch.setattr(brainquant.training.watchdog, "STORE_TIMEOUT", timedelta(seconds=0.5))
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = str(nobody.getsockname()[1])
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    child = start("hangs", 0.6, MASTER_ADDR="127.0.0.1", MASTER_PORT=port, **variables)
    assert child.exit_status() == 1
    (line,) = re.findall(f"^{LINE}", child.errors.read_text("utf-8"), re.MULTILINE)
    assert line[:2] == ("0", "rank 0") and line[3] == str(child.pid)


def test_of_ranks_that_are_equally_far_all_are_named():
    board = {rank: [7, "saving", time.time(), f"host{rank}", rank, True] for rank in range(3)}
    board[1][0] = 8
    assert ranks_to_blame(board) == [0, 2]
    text = hang_text({rank: board[rank] for rank in (0, 2)}, 10)
    assert "rank 0 (host host0, process 0) was last seen at 'saving', 0 s ago; rank 2 (host" in text
    board[2][5] = False  # it is not inside a collective: the others may wait for it
    assert ranks_to_blame(board) == [2]
    board[2] = None
    assert ranks_to_blame(board) == [2]
    assert "rank 2 has not begun to train" in hang_text({2: None}, 10)


@pytest.mark.parametrize("minutes", [0, 0.0, None])
def test_there_is_no_watchdog_without_minutes(minutes):
    with Watchdog(minutes) as watchdog:
        watchdog.tick("a training step")
        assert "watchdog" not in {thread.name for thread in threading.enumerate()}
