"""A run that cannot go on ends with one line, and torchrun shows the right rank."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brainquant.errors import RunError, one_line_errors

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] "
RANKS = """
import os
import torch
from brainquant.errors import one_line_errors

torch.distributed.init_process_group("gloo")
with one_line_errors():
    torch.distributed.barrier()
    if os.environ["RANK"] == "1":
        raise ValueError("what to do")
    torch.distributed.all_reduce(torch.ones(3))
"""


@pytest.fixture
def error_file(tmp_path, monkeypatch):
    """The file that torchrun reads if a rank has failed."""
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    return path


@pytest.mark.parametrize("kind", [ValueError, ImportError, FileNotFoundError, RunError])
def test_wrong_input_ends_the_program_with_one_line(kind):
    with pytest.raises(SystemExit, match="^error: what to do$"), one_line_errors():
        raise kind("what to do")


def test_only_the_kinds_that_are_given_are_clear():
    with pytest.raises(SystemExit, match="^error: what to do$"), one_line_errors(RunError):
        raise RunError("what to do")
    with pytest.raises(ValueError, match="^a bug$"), one_line_errors(RunError):
        raise ValueError("a bug")


@pytest.mark.parametrize(
    "text",
    [
        GLOO + "Connection closed by peer [127.0.0.1]:22939",
        GLOO + "Read error [127.0.0.1]:25500: Connection reset by peer",
        GLOO + "writev [127.0.0.1]:25500: Broken pipe",
        "NCCL error in: x.cpp:1, remote process exited or there was a network error\n"
        "ncclRemoteError: A call failed possibly due to a network error",
        "Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server "
        "shutdown or crash?",
    ],
)
def test_the_end_of_another_rank_is_no_error_of_this_one(text, monkeypatch, error_file):
    for name, value in {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    line = "^error on rank 3: another rank of the run has ended"
    with pytest.raises(SystemExit, match=line), one_line_errors(RuntimeError):
        raise RuntimeError(text)
    # torchrun shows the earliest error as the root cause: this one must look later by seconds.
    message = json.loads(error_file.read_text("utf-8"))["message"]
    assert "another rank" in message["message"]
    assert int(message["extraInfo"]["timestamp"]) > time.time() + 5


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape mismatch"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
        RuntimeError("NCCL error: ncclInvalidUsage, Duplicate GPU detected"),
        BrokenPipeError("[Errno 32] Broken pipe"),
    ],
    ids=repr,
)
def test_a_bug_keeps_its_traceback_and_torchrun_gets_it_too(error, error_file):
    with pytest.raises(type(error), match=re.escape(str(error))), one_line_errors():
        raise error
    shown = json.loads(error_file.read_text("utf-8"))["message"]["extraInfo"]["py_callstack"]
    assert shown.startswith("Traceback") and str(error) in shown


def test_an_error_is_shown_also_where_torchruns_file_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "gone" / "error.json"))
    with pytest.raises(SystemExit, match="^error: what to do$"), one_line_errors():
        raise ValueError("what to do")


def test_torchrun_shows_the_error_of_the_rank_that_failed(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS, "utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, script],
        text=True,
        capture_output=True,
        timeout=60,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        },
    )
    assert done.returncode == 1
    before, summary = done.stderr.split("Root Cause (first observed failure):")
    assert "error on rank 1: what to do" in before
    assert "error on rank 0: another rank of the run has ended" in before
    assert re.search(r"rank +: 1 ", summary) and "error on rank 1: what to do" in summary
