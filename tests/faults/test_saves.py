"""Every kill of a save, every damage of a checkpoint, and saves on a full disk."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_run import LAST_STEP, SmallRun, count_calls, never_killed, resume, save_at_step_4
from speechbrain.utils.epoch_loop import EpochCounter

from brainquant.errors import RunError
from brainquant.training.checkpoints import Checkpointer

pytestmark = pytest.mark.faults

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "name, described", [(None, "that deletes an older checkpoint"), ("last", "under a name again")]
)
def test_a_save_can_be_killed_at_each_of_its_system_calls(tmp_path, fault, name, described):
    old, new, loss = never_killed(tmp_path / "once", name=name)
    point, resumed, loaded = 0, 0, {old: 0, new: 0}
    while True:
        folder = shutil.copytree(tmp_path / "once", tmp_path / "killed")
        calls = save_at_step_4(folder, kill_at=point, name=name)
        if len(calls) <= point:
            break  # it came to its end
        state, loss_then, left = resume(folder, name=name)
        assert state in loaded, f"neither the old nor the new state after {calls}"
        assert loss_then == loss and len(left) == 1, f"{loss_then}, {left} after {calls}"
        loaded[state] += 1
        resumed += loss_then == loss
        shutil.rmtree(folder)
        point += 1
    assert point > 40 and min(loaded.values()) > 5 and resumed == point
    fault(
        injected=f"SIGKILL at each of the {point} system calls of a save {described}",
        expected="every start resumes from the old or the new checkpoint, to the same last loss",
        seen=f"{resumed} of {point} did, {loaded[old]} from the old and {loaded[new]} from the new",
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of steps 1 and 2; the tests damage that of step 2 and repair it."""
    folder = tmp_path_factory.mktemp("save")
    counter, checkpointer = counter_and_checkpointer(folder)
    for counter.current in (1, 2):
        checkpointer.save_checkpoint(name=f"step{counter.current}")
    return folder


def counter_and_checkpointer(folder):
    counter = EpochCounter(9)
    return counter, Checkpointer(folder, {"steps": counter, "layer": torch.nn.Linear(1, 1)})


def found(folder, name, content):
    """Whether a start with another content of a file of step 2 notices it and loads step 1."""
    file = folder / "CKPT+step2" / name
    whole = file.read_bytes()
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    counter, checkpointer = counter_and_checkpointer(folder)
    checkpointer.recover_if_possible()
    aside = folder / "damaged+CKPT+step2"
    if aside.exists():
        aside.rename(file.parent)
    file.write_bytes(whole)
    return counter.current == 1


def test_one_bit_of_each_byte_is_flipped(saved, fault):
    files = sorted((saved / "CKPT+step2").iterdir())
    flips = seen = 0
    for file in files:
        whole = file.read_bytes()
        for index, byte in enumerate(whole):
            flipped = bytes([byte ^ 1 << index % 8])
            seen += found(saved, file.name, whole[:index] + flipped + whole[index + 1 :])
            flips += 1
    assert seen == flips > 1000
    fault(
        injected=f"one bit flipped in each of the {flips} bytes of {len(files)} files",
        expected="the checkpoint is set aside and the one before it is loaded",
        seen=f"{seen} of {flips}",
    )


def test_each_file_is_cut_to_each_length_and_removed(saved, fault):
    files = sorted((saved / "CKPT+step2").iterdir())
    cuts = seen = 0
    for file in files:
        whole = file.read_bytes()
        for content in [None, *(whole[:length] for length in range(len(whole)))]:
            seen += found(saved, file.name, content)
            cuts += 1
    assert seen == cuts > 1000
    fault(
        injected=f"each of {len(files)} files removed, emptied, and cut to each shorter length",
        expected="the checkpoint is set aside and the one before it is loaded",
        seen=f"{seen} of {cuts}",
    )


def test_all_checkpoints_are_damaged(tmp_path, fault):
    counter, checkpointer = counter_and_checkpointer(tmp_path)
    for counter.current in (1, 2, 3):
        path = checkpointer.save_checkpoint(name=f"step{counter.current}").path
        (path / "layer.ckpt").write_bytes(b"")
    errors = []
    for _ in range(2):
        with pytest.raises(RunError, match="no whole checkpoint") as raised:
            counter_and_checkpointer(tmp_path)[1].recover_if_possible()
        errors.append(str(raised.value))
    assert all(f"damaged+CKPT+step{step}" in error for step in (1, 2, 3) for error in errors)
    fault(
        injected="3 of 3 checkpoints damaged, the run started twice",
        expected="an error that names them, each time",
        seen=errors[1].replace(str(tmp_path), "<folder>"),
    )


def test_2000_saves_take_constant_time(tmp_path, fault):
    run = SmallRun(tmp_path, hidden=4)
    run.train(1)
    run.save()  # does the slow imports
    early = max(count_calls(run.save) for _ in range(100))
    for _ in range(1800):
        run.save()
    late = max(count_calls(run.save) for _ in range(100))
    left = list(tmp_path.iterdir())
    # The second save within a second looks for another name, with a few more calls.
    assert late <= 1.02 * early and len(left) == 1
    fault(
        injected="2000 saves",
        expected="the last ones do no more than the first, and one checkpoint is there",
        seen=f"at most {early} calls of functions among the first 100, {late} among the last 100; "
        f"{len(left)} checkpoint",
    )


def on_a_full_disk(folder):
    """Saves in a folder of 2 MB with more and more free space; runs in a process of its own."""
    run = SmallRun(folder)
    run.train(2)
    first = run.save()
    run.train(4)
    filler, checkpoint = Path(folder, "filler"), None
    failed = whole = 0
    while checkpoint is None:
        space = os.statvfs(folder)
        filler.write_bytes(bytes(space.f_bavail * space.f_frsize - 4096 * failed))
        checkpoint = run.save()
        if checkpoint is None:
            failed += 1
            reason = run.checkpointer.save_failed
            whole += SmallRun(folder).recover().steps.current == 2
        filler.unlink()
    saved = SmallRun(folder).recover().steps.current == 4 and not first.path.exists()
    run.train()
    result = {"failed": failed, "whole": whole, "saved": saved, "last": run.save().meta["step"]}
    print(json.dumps({**result, "reason": reason}))


def test_the_disk_is_full(tmp_path, fault):
    mount = f"mount -t tmpfs -o size=2m none '{tmp_path}'"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    paths = os.pathsep.join(str(path) for path in (TESTS / "faults", TESTS, TESTS.parent))
    python = f"'{sys.executable}' -c 'import test_saves; test_saves.on_a_full_disk(\"{tmp_path}\")'"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{mount} && {python}"],
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["failed"] > 10 and seen["whole"] == seen["failed"]
    assert seen["saved"] and seen["last"] == LAST_STEP
    assert "make space on that disk" in seen["reason"]
    fault(
        injected=f"{seen['failed']} saves on a disk with 0, 4, 8... KB left, until there is space",
        expected="training goes on, the last checkpoint is whole, the save with space works",
        seen=f"whole after {seen['whole']} of {seen['failed']} failed saves; then step "
        f"{seen['last']} was saved",
    )
