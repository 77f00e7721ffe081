"""A folder takes one run at a time, however the first run ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from syscalls import fork

import brainquant.training.run_lock
from brainquant.training.run_lock import RunLock, is_held


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a folder, with a worker that outlives it."""
    read, write = os.pipe()

    def hold():
        lock = RunLock(tmp_path)
        lock.acquire()
        worker = os.fork()
        if worker != 0:
            os.write(write, f"{worker}\n".encode())
        time.sleep(600)

    process = fork(hold)
    os.close(write)
    with open(read, encoding="utf-8") as numbers:
        worker = int(numbers.readline())
    yield process, worker
    os.kill(worker, signal.SIGKILL)


def test_the_second_run_is_refused_with_the_first_named_until_that_is_killed(tmp_path, holder):
    process, worker = holder
    first = f"host {socket.gethostname()}, process {process}, since 2"
    for _ in range(2):  # being refused changes nothing, nor does a look at the lock
        assert is_held(tmp_path)
        with pytest.raises(ValueError) as refused:
            RunLock(tmp_path).acquire()
        assert str(tmp_path) in str(refused.value) and first in str(refused.value)
        assert "another output_folder:" in str(refused.value)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    os.kill(worker, 0)  # it lives, and has inherited every open file
    assert not is_held(tmp_path)
    with RunLock(tmp_path):
        assert f"process {os.getpid()}," in (tmp_path / "run.lock").read_text("utf-8")


HOLDER = """
import sys
from brainquant.training.run_lock import RunLock
lock = RunLock(sys.argv[1])
lock.acquire()
print("holds", flush=True)
sys.stdin.readline()
"""
LAUNCHER = """
import subprocess, sys
with subprocess.Popen([sys.executable, "-c", *sys.argv[1:]]) as rank:
    print(rank.pid, flush=True)
"""


def test_a_rank_that_its_killed_launcher_left_behind_is_waited_for(tmp_path, monkeypatch, caplog):
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, HOLDER, str(tmp_path)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            "TORCHELASTIC_RUN_ID": "of a test",
        },
    )
    rank = int(launcher.stdout.readline())
    assert launcher.stdout.readline() == "holds\n"
    with pytest.raises(ValueError, match=f"process {rank}, since .*: wait for it, stop it"):
        RunLock(tmp_path).acquire()  # the launcher lives: another run
    assert not caplog.records

    launcher.kill()
    launcher.wait()
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 2:
            launcher.stdin.write("\n")
            launcher.stdin.flush()
            launcher.stdout.read()  # until the rank has closed it

    monkeypatch.setattr(brainquant.training.run_lock.time, "sleep", sleep)
    monkeypatch.setattr(brainquant.training.run_lock, "PATIENCE_SECONDS", 0.0)
    message = rf"process {rank}, .*torchrun \(process {launcher.pid}\) has ended, .* kill it"
    with pytest.raises(ValueError, match=message):
        RunLock(tmp_path).acquire()
    monkeypatch.setattr(brainquant.training.run_lock, "PATIENCE_SECONDS", 60.0)
    slept.clear()
    caplog.clear()
    with RunLock(tmp_path):
        assert taken_elsewhere(tmp_path)
    (record,) = caplog.records  # one line
    assert f"torchrun (process {launcher.pid})" in record.message and len(slept) >= 2
    launcher.communicate()


def taken_elsewhere(folder):
    """Whether another process finds the folder taken."""
    lock = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    command = [sys.executable, "-c", lock, str(folder / "run.lock")]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 0 or "BlockingIOError" in done.stderr
    return done.returncode != 0


def test_a_process_does_not_let_itself_in_twice_and_keeps_its_lock_when_it_tries(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with RunLock(tmp_path):
        second = RunLock(tmp_path / "link")
        with pytest.raises(ValueError, match="in use by another run of this process"):
            second.acquire()
        second.release()  # of what it does not have
        assert is_held(tmp_path / "link")
        assert taken_elsewhere(tmp_path)
    assert not taken_elsewhere(tmp_path)
    with RunLock(tmp_path), RunLock(tmp_path / "other"):
        pass


def test_other_ranks_leave_the_lock_to_rank_0(tmp_path, monkeypatch):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with RunLock(tmp_path):
        assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def no_locks(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(brainquant.training.run_lock.fcntl, "lockf", no_locks)
    with RunLock(tmp_path):
        pass
    assert "cannot be locked" in caplog.text and "No locks available" in caplog.text
