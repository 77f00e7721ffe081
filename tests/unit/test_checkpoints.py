"""Checkpoints are whole or not there, whatever a save, a disk or a clock does."""

import logging
import os
import pickle
import resource
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_run import (
    LAST_STEP,
    SmallRun,
    count_calls,
    never_killed,
    ranks,
    resume,
    save_at_step_4,
)  # fmt: skip
from speechbrain.nnet.schedulers import NoamScheduler
from speechbrain.utils.checkpoints import Checkpointer as StockCheckpointer
from speechbrain.utils.epoch_loop import EpochCounter
from syscalls import in_child

from brainquant.errors import RunError
from brainquant.training.checkpoint_folder import write_manifest
from brainquant.training.checkpoints import Checkpointer

FILES = ["CKPT.yaml", "SHA256SUMS", "layer.ckpt", "steps.ckpt"]


def counter_and_checkpointer(folder, cls=Checkpointer):
    counter = EpochCounter(9)
    return counter, cls(folder, {"steps": counter, "layer": torch.nn.Linear(1, 1)})


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    """A folder with checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("save")
    counter, checkpointer = counter_and_checkpointer(folder)
    for counter.current in (1, 2):
        checkpointer.save_checkpoint(name=f"step{counter.current}")
    return folder


@pytest.fixture
def saved(two_checkpoints, tmp_path):
    """A copy of it, which a test may damage."""
    return Path(shutil.copytree(two_checkpoints, tmp_path / "save"))


# ---- loading ---------------------------------------------------------------------------------


@given(name=st.sampled_from(FILES), index=st.integers(0, 10**6), change=st.integers(1, 255))
def test_a_changed_byte_is_found_in_any_file(two_checkpoints, name, index, change):
    file = two_checkpoints / "CKPT+step2" / name
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[index % len(whole)] ^= change
    file.write_bytes(damaged)
    try:
        counter, checkpointer = counter_and_checkpointer(two_checkpoints)
        assert checkpointer.recover_if_possible().path.name == "CKPT+step1"
        assert counter.current == 1
        assert names(two_checkpoints) == ["CKPT+step1", "damaged+CKPT+step2"]
    finally:
        aside = two_checkpoints / "damaged+CKPT+step2"
        if aside.exists():
            aside.rename(two_checkpoints / "CKPT+step2")
        file.write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", ["missing", "empty", "cut short", "longer"])
def test_a_file_that_is_missing_or_of_another_length_is_named(saved, caplog, name, fault):
    file = saved / "CKPT+step2" / name
    content = file.read_bytes()
    file.unlink()
    if fault != "missing":
        file.write_bytes({"empty": b"", "cut short": content[:-1]}.get(fault, content + b"\n"))
    counter, checkpointer = counter_and_checkpointer(saved)
    checkpointer.recover_if_possible()
    assert counter.current == 1
    (warning,) = warnings(caplog)
    assert "CKPT+step2 is no whole checkpoint" in warning and name in warning


def test_a_manifest_that_ends_between_two_lines_is_cut_short(saved, caplog):
    file = saved / "CKPT+step2" / "SHA256SUMS"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    assert counter_and_checkpointer(saved)[1].recover_if_possible().path.name == "CKPT+step1"
    assert "SHA256SUMS is cut short" in warnings(caplog)[0]


def test_the_manifest_is_one_of_sha256sum(saved):
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    command = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
    done = subprocess.run(command, cwd=saved / "CKPT+step2", capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": OK\n") == len(FILES) - 1


@pytest.mark.parametrize("text", ["", "{", "[]", "unixtime: soon", "end-of-epoch: true"])
def test_a_damaged_ckpt_yaml_does_not_stop_the_others_from_being_found(saved, text):
    (saved / "CKPT+step2" / "CKPT.yaml").write_text(text)
    _, checkpointer = counter_and_checkpointer(saved)
    assert [c.path.name for c in checkpointer.find_checkpoints()] == ["CKPT+step1"]
    checkpointer.save_and_keep_only(name="step3")
    assert names(saved) == [
        "CKPT+step2",
        "CKPT+step3",
    ]  # a checkpoint without a readable meta is not deleted


def test_no_whole_checkpoint_is_an_error_at_this_start_and_at_the_next(saved):
    (saved / "CKPT+step1" / "CKPT.yaml").unlink()
    (saved / "CKPT+step2" / "layer.ckpt").unlink()
    for _ in range(2):
        counter, checkpointer = counter_and_checkpointer(saved)
        with pytest.raises(RunError, match="new output_folder:") as raised:
            checkpointer.recover_if_possible()
        assert "damaged+CKPT+step1, damaged+CKPT+step2" in str(raised.value)
        assert counter.current == 0


def test_none_of_the_wanted_kind_is_an_error_only_where_one_was_damaged(saved):
    _, checkpointer = counter_and_checkpointer(saved)
    assert checkpointer.recover_if_possible(min_key="valid_loss") is None
    (saved / "CKPT+step2" / "CKPT.yaml").unlink()
    with pytest.raises(RunError, match="no whole checkpoint"):
        checkpointer.recover_if_possible(min_key="valid_loss")
    assert checkpointer.recover_if_possible(min_key="valid_loss") is None
    assert checkpointer.recover_if_possible().path.name == "CKPT+step1"


def test_an_empty_folder_is_a_fresh_start(tmp_path):
    assert counter_and_checkpointer(tmp_path)[1].recover_if_possible() is None


def test_what_was_set_aside_earlier_stays(saved):
    for number in range(3):
        _, checkpointer = counter_and_checkpointer(saved)
        (saved / "CKPT+step2" / "layer.ckpt").write_text(str(number))
        checkpointer.recover_if_possible()
        checkpointer.save_checkpoint(name="step2")
    aside = sorted(saved.glob("damaged+*"))
    assert [(path / "layer.ckpt").read_text() for path in aside] == ["0", "1", "2"]


def test_a_checkpoint_that_is_loaded_by_hand_is_checked_too(saved):
    counter, checkpointer = counter_and_checkpointer(saved)
    best = checkpointer.find_checkpoint()
    checkpointer.load_checkpoint(best)
    assert counter.current == 2
    (best.path / "layer.ckpt").write_bytes(b"")
    with pytest.raises(RunError, match="layer.ckpt is not as it was saved"):
        checkpointer.load_checkpoint(best)


def test_speechbrains_own_checkpointer_loads_ours(saved):
    counter, stock = counter_and_checkpointer(saved, StockCheckpointer)
    assert [c.path.name for c in stock.find_checkpoints()] == ["CKPT+step2", "CKPT+step1"]
    assert stock.recover_if_possible().meta["end-of-epoch"] is True
    assert counter.current == 2


def test_speechbrains_own_checkpoint_is_set_aside_because_it_has_no_sums(tmp_path, caplog):
    counter_and_checkpointer(tmp_path, StockCheckpointer)[1].save_checkpoint(name="old")
    with pytest.raises(RunError, match=r"damaged\+CKPT\+old"):
        counter_and_checkpointer(tmp_path)[1].recover_if_possible()
    assert "SHA256SUMS is missing: not saved to its end, or not by brainquant" in caplog.text


# ---- saving ----------------------------------------------------------------------------------


def test_a_save_gives_the_checkpoint_in_its_place(tmp_path):
    counter, checkpointer = counter_and_checkpointer(tmp_path)
    checkpoint = checkpointer.save_and_keep_only({"valid_loss": 2.5}, end_of_epoch=False)
    assert checkpoint == checkpointer.find_checkpoint()
    assert names(checkpoint.path) == FILES
    assert checkpoint.meta["valid_loss"] == 2.5 and checkpoint.meta["end-of-epoch"] is False


def test_the_files_are_on_the_disk_before_the_checkpoint_has_its_name(tmp_path):
    never_killed(tmp_path)
    calls = save_at_step_4(tmp_path)
    before, after = calls[: calls.index("rename")], calls[calls.index("rename") + 1 :]
    written = before.count("openat") + 1  # the files and their folder
    assert before[-written:] == ["fsync"] * written
    assert after[0] == "fsync" and "unlinkat" in after and "unlinkat" not in before


def test_a_save_killed_anywhere_leaves_the_old_or_the_new_checkpoint(tmp_path):
    old, new, loss = never_killed(tmp_path / "once")
    shutil.copytree(tmp_path / "once", tmp_path / "whole save")
    calls = save_at_step_4(tmp_path / "whole save")
    renamed = calls.index("rename")
    last = len(calls) - 1
    for point in sorted({0, renamed // 2, renamed, renamed + 1, (renamed + last) // 2, last}):
        folder = shutil.copytree(tmp_path / "once", tmp_path / f"killed at {point}")
        assert save_at_step_4(folder, kill_at=point) == calls[: point + 1]
        loaded, loss_then, left = resume(folder)
        assert loaded == (old if point <= renamed else new)
        assert loss_then == loss
        assert len(left) == 1 and left[0].startswith("CKPT+")


def test_what_a_killed_save_has_left_is_removed_before_the_next(tmp_path):
    for name in (".unfinished+CKPT+a", ".deleted+CKPT+b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "layer.ckpt").write_text("x")
    counter_and_checkpointer(tmp_path)[1].save_checkpoint(name="c")
    assert names(tmp_path) == ["CKPT+c"]


@pytest.mark.parametrize(
    "limit, reason", [(10, "File too large"), (100, "torch.save"), (9000, "torch.save")]
)
def test_training_goes_on_where_there_is_no_space_to_save(tmp_path, limit, reason, caplog):
    def start():
        run = SmallRun(tmp_path)
        run.train(1)
        older = run.save()
        run.train(2)
        first = run.save(num_to_keep=2)
        run.train(4)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        failed = run.save(), run.checkpointer.save_failed, warnings(caplog)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        there = names(tmp_path)
        whole = SmallRun(tmp_path).recover().steps.current
        run.train(LAST_STEP)
        return [older, first], failed, there, whole, run.save(), run.checkpointer.save_failed

    (older, first), failed, there, whole, last, failure_then = in_child(start)
    checkpoint, failure, (warning,) = failed
    assert checkpoint is None and there == [older.path.name, first.path.name] and whole == 2
    assert reason in failure and f"The last checkpoint {first.path} is whole" in failure
    assert "it needs 0.1 MB" in failure and "MB are free" in failure and "make space" in failure
    assert warning == f"{failure}. Training goes on"
    assert last.meta["step"] == LAST_STEP and failure_then is None
    assert names(tmp_path) == [last.path.name]


def test_an_error_that_is_not_about_space_is_raised_and_costs_nothing(saved):
    _, checkpointer = counter_and_checkpointer(saved)
    checkpointer.custom_save_hooks["layer"] = lambda layer, path: Path(path, "x").touch()
    with pytest.raises(FileNotFoundError):
        checkpointer.save_and_keep_only()
    del checkpointer.custom_save_hooks["layer"]
    assert checkpointer.recover_if_possible().path.name == "CKPT+step2"
    checkpointer.save_and_keep_only(name="step3")
    assert names(saved) == ["CKPT+step3"]


def test_a_meta_that_the_yaml_cannot_give_back_is_refused(tmp_path):
    _, checkpointer = counter_and_checkpointer(tmp_path)
    with pytest.raises(ValueError, match=r"meta\['loss'\] .* plain number"):
        checkpointer.save_checkpoint({"loss": torch.tensor(1.0)})
    assert names(tmp_path) == []


def test_a_name_can_be_used_again(saved):
    counter, checkpointer = counter_and_checkpointer(saved)
    counter.current = 5
    assert checkpointer.save_checkpoint(name="step1").path.name == "CKPT+step1"
    counter.current = 0
    assert checkpointer.recover_if_possible().path.name == "CKPT+step1"
    assert counter.current == 5 and names(saved) == ["CKPT+step1", "CKPT+step2"]


def test_a_saver_may_write_a_folder(tmp_path):
    def save(layer, path):
        Path(path).mkdir()
        Path(path, "part").write_text("1")

    _, checkpointer = counter_and_checkpointer(tmp_path)
    checkpointer.add_recoverable("more", object(), lambda *_: None, save)
    checkpoint = checkpointer.save_checkpoint()
    (checkpoint.path / "more.ckpt" / "part").write_text("2")
    with pytest.raises(RunError, match="more.ckpt/part is not as it was saved"):
        checkpointer.load_checkpoint(checkpoint)


def test_the_last_save_is_the_most_recent_with_a_clock_that_was_set_back(tmp_path, monkeypatch):
    counter, checkpointer = counter_and_checkpointer(tmp_path)
    for counter.current, now in enumerate([2e9, 1.0, 1e9, 1.5e9]):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        checkpointer.save_and_keep_only(num_to_keep=2)
    assert len(names(tmp_path)) == 2
    counter.current = 9
    checkpointer.recover_if_possible()
    assert counter.current == 3


@given(
    losses=st.lists(st.sampled_from([1.0, 2.0, 3.0, None]), min_size=1, max_size=6),
    num_to_keep=st.integers(0, 3),
    keep_recent=st.booleans(),
    keys=st.sampled_from([{}, {"min_keys": ["loss"]}, {"max_keys": ["loss"]}]),
    deletable=st.sampled_from([None, 2]),
)
def test_the_checkpoints_that_are_kept_are_those_of_speechbrain(
    tmp_path_factory, losses, num_to_keep, keep_recent, keys, deletable
):
    kept = []
    for cls in (Checkpointer, StockCheckpointer):
        checkpointer = cls(tmp_path_factory.mktemp("save"), {})
        for step, loss in enumerate(losses):
            checkpointer.save_and_keep_only(
                {"step": step} if loss is None else {"step": step, "loss": loss},
                num_to_keep=num_to_keep,
                keep_recent=keep_recent,
                importance_keys=[],
                ckpt_predicate=deletable and (lambda c: c.meta["step"] % deletable == 0),
                **keys,
            )
        kept.append(sorted(c.meta["step"] for c in checkpointer.list_checkpoints()))
    assert kept[0] == kept[1]


def test_saves_do_not_get_slower(tmp_path):
    run = SmallRun(tmp_path)
    run.train(1)
    calls = [count_calls(run.save) for _ in range(40)]
    assert max(calls[30:]) <= 1.02 * max(calls[2:12]) and len(names(tmp_path)) == 1


# ---- ranks -----------------------------------------------------------------------------------


def failure(function):
    with pytest.raises(Exception) as raised:
        function()
    return type(raised.value), str(raised.value)


def test_all_ranks_get_what_became_of_a_save_and_of_a_start(tmp_path):
    def on_rank(rank):
        counter, checkpointer = counter_and_checkpointer(tmp_path)
        saved = checkpointer.save_and_keep_only(name="first")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if rank == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        no_space = checkpointer.save_and_keep_only(), checkpointer.save_failed
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        counter.current = 7
        loaded = checkpointer.recover_if_possible(), counter.current
        checkpointer.custom_save_hooks["layer"] = lambda layer, path: 1 / 0
        errors = [failure(checkpointer.save_checkpoint)]
        if rank == 0:
            (saved.path / "layer.ckpt").write_text("")
        errors.append(failure(checkpointer.recover_if_possible))
        return (saved, no_space, loaded, errors[1]), errors[0]

    (first, error), (second, error_of_second) = ranks(on_rank)
    assert first == second
    saved, no_space, loaded, none_whole = first
    assert saved.path == tmp_path / "CKPT+first" and loaded == (saved, 0)
    assert no_space[0] is None and "torch.save: " in no_space[1]
    assert none_whole[0] is RunError and "damaged+CKPT+first" in none_whole[1]
    assert error == (ZeroDivisionError, "division by zero")
    assert error_of_second == (RuntimeError, "on rank 0, ZeroDivisionError: division by zero")


# ---- wrong contents with right sums ----------------------------------------


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def set_sums_right(folder):
    """Writes the manifest again, as somebody would who changes a checkpoint on purpose."""
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    write_manifest(folder)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "has no keys"),
        ("[1, 2]", "has no keys"),
        ("{", "cannot be read"),
        (
            "unixtime: 4e9",
            "unixtime in CKPT.yaml is '4e9', not a time",
        ),  # without a dot it is a text
        ("unixtime: 4000000000.0", "lacks the key 'end-of-epoch'"),
        ("end-of-epoch: true", "lacks the key 'unixtime'"),
        ("unixtime: .inf\nend-of-epoch: true", "unixtime in CKPT.yaml is inf"),
        ("unixtime: 4000000000.0\nend-of-epoch: maybe", "end-of-epoch in CKPT.yaml is 'maybe'"),
        ("!!python/object/apply:os.system ['touch attacked']", "cannot be read"),
        (
            "&a [*a, *a]",
            "CKPT.yaml",
        ),  # the reason depends on what other code did to PyYAML's loader
        ("\x00", "cannot be read"),
    ],
)
def test_a_meta_with_other_contents_is_damaged(saved, caplog, monkeypatch, text, reason):
    monkeypatch.chdir(saved)
    (saved / "CKPT+step2" / "CKPT.yaml").write_text(text)
    set_sums_right(saved / "CKPT+step2")
    counter, checkpointer = counter_and_checkpointer(saved)
    assert checkpointer.recover_if_possible().path.name == "CKPT+step1" and counter.current == 1
    assert names(saved) == ["CKPT+step1", "damaged+CKPT+step2"]
    assert reason in warnings(caplog)[0]


def pickled(path, attacked):
    path.write_bytes(pickle.dumps(Attack(attacked)))


def pickled_as_text(path, attacked):
    path.write_bytes(pickle.dumps(Attack(attacked), protocol=0))


def saved_by_torch(path, attacked):
    torch.save({"weight": Attack(attacked)}, path)


def empty(path, attacked):
    path.write_bytes(b"")


def cut_short(path, attacked):
    path.write_bytes(path.read_bytes()[:300])


def another_kind(path, attacked):
    torch.save([1, 2], path)


def no_tensor(path, attacked):
    torch.save({"weight": "1", "bias": torch.zeros(1)}, path)


@pytest.mark.parametrize("name", ["layer", "steps", "moments", "annealing", "state"])
@pytest.mark.parametrize(
    "spoil",
    [pickled, pickled_as_text, saved_by_torch, empty, cut_short, another_kind, no_tensor],
    ids=lambda spoil: spoil.__name__,
)
def test_a_file_with_other_contents_is_damaged_and_nothing_of_it_runs(
    tmp_path, caplog, monkeypatch, name, spoil
):
    monkeypatch.setenv(
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1"
    )  # many people set it for other files
    layer = torch.nn.Linear(1, 1)

    def load_state(state, path, end_of_epoch):
        state.update(steps=torch.load(path)["steps"])

    counter, checkpointer = counter_and_checkpointer(tmp_path / "save")
    moments = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1)).backward()
    moments.step()
    checkpointer.add_recoverable("moments", moments)
    checkpointer.add_recoverable(
        "annealing", NoamScheduler(1.0, 10)
    )  # SpeechBrain loads it by torch.load
    state = {"steps": 3}
    checkpointer.add_recoverable("state", state, load_state, torch.save)
    for counter.current in (1, 2):
        newest = checkpointer.save_checkpoint().path
    if name == "steps" and spoil is cut_short:
        pytest.skip("a number that is cut short is another number")
    spoil(newest / f"{name}.ckpt", tmp_path / "attacked")
    set_sums_right(newest)
    checkpointer.recover_if_possible()
    assert counter.current == 1 and state == {"steps": 3}
    assert names(newest.parent)[1] == f"damaged+{newest.name}"
    assert f"({name}.ckpt: " in warnings(caplog)[-1] and "\n" not in warnings(caplog)[-1]
    assert "weights_only=False" not in caplog.text and not (tmp_path / "attacked").exists()
    newest = checkpointer.save_checkpoint().path
    spoil(newest / f"{name}.ckpt", tmp_path / "attacked")
    set_sums_right(newest)
    with pytest.raises(RunError, match=f"{name}.ckpt: .*load another checkpoint"):
        checkpointer.load_checkpoint(checkpointer.find_checkpoint())
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"


def test_a_file_that_has_no_sum_is_not_loaded(saved, caplog):
    newest = saved / "CKPT+step2"
    lines = (newest / "SHA256SUMS").read_text().splitlines(keepends=True)
    (newest / "SHA256SUMS").write_text("".join(line for line in lines if "layer" not in line))
    (newest / "notes.txt").write_text("the best so far")  # a person's note does no harm
    (saved / "CKPT+step1" / "notes.txt").write_text("the one before")
    assert counter_and_checkpointer(saved)[1].recover_if_possible().path.name == "CKPT+step1"
    assert "layer.ckpt has no sum in SHA256SUMS" in warnings(caplog)[0]


@pytest.mark.parametrize("name", ["/dev/zero", "../CKPT+step1/layer.ckpt", "pipe"])
def test_a_manifest_of_what_is_no_file_of_the_folder_is_damaged(saved, caplog, name):
    newest = saved / "CKPT+step2"
    os.mkfifo(newest / "pipe")
    manifest = newest / "SHA256SUMS"
    manifest.write_text(f"{'0' * 64}  {name}\n{manifest.read_text()}")
    assert counter_and_checkpointer(saved)[1].recover_if_possible().path.name == "CKPT+step1"
    assert name in warnings(caplog)[0]


@pytest.mark.parametrize("change", ["another size", "no file", "another optimiser"])
def test_a_whole_checkpoint_of_another_model_stays_and_is_named(saved, change):
    counter, checkpointer = counter_and_checkpointer(saved)
    if change == "another size":
        checkpointer.recoverables["layer"] = torch.nn.Linear(2, 1)
    elif change == "no file":
        checkpointer.recoverables["head"] = torch.nn.Linear(1, 1)
    else:
        few = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)
        many = torch.optim.SGD([{"params": [p]} for p in torch.nn.Linear(1, 1).parameters()], 0.1)
        checkpointer.recoverables["moments"] = few
        checkpointer.save_checkpoint()
        checkpointer.recoverables["moments"] = many
    before = names(saved)
    with pytest.raises(RunError, match="is not of this YAML .*new output_folder"):
        checkpointer.recover_if_possible()
    assert names(saved) == before


def test_the_best_is_chosen_among_those_with_a_number(tmp_path):
    counter, checkpointer = counter_and_checkpointer(tmp_path)
    for counter.current, loss in enumerate([2.0, 1.0, float("nan"), "0.5", None]):
        checkpointer.save_checkpoint({"valid_loss": loss})
    assert checkpointer.recover_if_possible(min_key="valid_loss").meta["valid_loss"] == 1.0
    assert counter.current == 1
    checkpointer.save_and_keep_only({"valid_loss": 3.0}, min_keys=["valid_loss"])
    kept = [c.meta["valid_loss"] for c in checkpointer.list_checkpoints()]
    assert 1.0 in kept and 3.0 in kept


def test_a_link_in_the_place_of_what_is_removed_is_removed_and_not_followed(saved, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    for name in (".unfinished+CKPT+a", ".deleted+CKPT+b", "damaged+CKPT+step2"):
        (saved / name).symlink_to(precious if name[0] == "." else "nowhere")
    (saved / "CKPT+step2" / "layer.ckpt").write_bytes(b"")
    _, checkpointer = counter_and_checkpointer(saved)
    checkpointer.recover_if_possible()
    checkpointer.save_checkpoint(name="step3")
    assert names(precious) == ["file"]
    assert names(saved) == [
        "CKPT+step1", "CKPT+step3", "damaged+CKPT+step2", "damaged+CKPT+step2+2"
    ]  # fmt: skip


def test_every_rank_passes_over_a_checkpoint_that_one_cannot_read(tmp_path):
    def on_rank(rank):
        counter, checkpointer = counter_and_checkpointer(tmp_path)
        for counter.current in (1, 2):
            saved = checkpointer.save_checkpoint()
        if rank == 0:
            (saved.path / "steps.ckpt").write_text("two")
            set_sums_right(saved.path)
        return checkpointer.recover_if_possible(), counter.current, names(tmp_path)

    first, second = ranks(on_rank)
    assert first == second and first[1] == 1 and first[2][1].startswith("damaged+CKPT+")
