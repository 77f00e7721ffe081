"""The folder of a run: what is read of it, whatever happened to it, and it is not changed."""

import hashlib
import json
import os
import shutil

import hypothesis
import pytest
from hypothesis import strategies as st
from made_runs import make_run, probe

from brainquant.reporting.compare import compare_runs, format_comparison
from brainquant.reporting.run_folder import read_run
from brainquant.reporting.several_runs import read_runs
from brainquant.training.run_lock import RunLock


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run that has every kind of file."""
    folder = make_run(tmp_path_factory.mktemp("whole") / "run")
    (folder / "probe_spk_id.json").write_text(json.dumps(probe(0.75, "spk_id")))
    (folder / "wer_test-clean.txt").write_text("%WER 9.09 [ 2 / 22, 0 ins, 1 del, 1 sub ]\n...")
    (folder / "evaluated_at_step.txt").write_text("200")
    return folder


def contents(folder):
    """Every file of a folder, with its bytes and when it was changed."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.is_file() and sha256(path))
        for path in sorted(folder.rglob("*"))
    }


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_whole_run_has_no_remark_and_all_that_is_in_its_folder(whole):
    before = contents(whole)
    run = read_run(whole)
    assert contents(whole) == before
    assert run.remarks == []
    assert (run.name, run.objective, run.state) == ("run", "BEST-RQ", "finished")
    assert (run.steps, run.step_limit, run.run_seconds, run.speech_seconds) == (200, 200, 400, 7200)
    assert run.values["make_quantiser.cb_vocab"] == "64"
    assert run.options == {"device": "cpu", "precision": "fp32"}
    assert run.versions == {"Python": "3.11.7", "torch": "2.11.0"}
    assert [(entry["kind"], entry["reason"]) for entry in run.left_out] == [
        ("clip", "a.wav: cannot be read"), ("step", "loss is not finite"),
    ]  # fmt: skip
    assert [found.of for found in run.probes] == ["phones", "spk_id"]
    assert run.probes[0].pretrained.mean == 0.5 and run.probes[0].abx["within"]["codes"] == [0.35]
    assert run.error_rates == {"test-clean": 9.09}
    (kept,) = run.checkpoints
    assert kept.step == 200 and kept.bytes > 20_000
    text, state = run.verdict
    assert "1.00 nats below the unigram" in text and "of 64" in text and state == "good"


def test_the_state_is_that_of_the_lock_and_of_the_limit(tmp_path):
    run = make_run(tmp_path / "run", steps=100)
    assert read_run(run).state == "interrupted"
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 150, "stage": "train", "lo')  # is being written
    with RunLock(run):
        seen = read_run(run)
        assert (seen.state, seen.steps, seen.remarks) == ("going on", 100, [])
        text = (run / "run.lock").read_text("utf-8")
        assert read_run(run).state == "going on" and text.startswith("host ")
    assert read_run(run).state == "interrupted"
    assert read_run(make_run(tmp_path / "new", steps=0, limit=5)).state == "not started"
    ended = make_run(tmp_path / "ended", limit="null", more="number_of_epochs: 3")
    assert read_run(ended).state == "finished"


def test_runs_of_others_and_of_the_past_are_shown_as_far_as_they_go(tmp_path):
    old = make_run(tmp_path / "old", log={"run_seconds": None, "speech_seconds": None})
    assert read_run(old).remarks == ["its log is of an older version: the time is not known"]
    stock = tmp_path / "stock"
    stock.mkdir()
    (stock / "hyperparams.yaml").write_text("CNN: 1\nwrapper: 2\nnormalize: 3\nlr: 0.1\n")
    seen = read_run(stock)
    assert seen.objective == "BEST-RQ, SpeechBrain's recipe" and seen.values["lr"] == "0.1"
    assert len(seen.remarks) == 1 and "train_log.txt" in seen.remarks[0]
    shutil.copy(old / "phones.json", stock)
    (stock / "evaluated_at_step.txt").write_text("7")
    assert "phones.json is of step 7, the log ends at step 0" in read_run(stock).remarks


def test_nothing_of_a_yaml_is_executed_and_no_pipe_is_waited_for(tmp_path):
    folder = make_run(tmp_path / "run")
    made = tmp_path / "made"
    text = f"evil: !apply:os.mkdir ['{made}']\nlr: 0.5\n"
    (folder / "hyperparams.yaml").write_text(text)
    (folder / "phones.json").unlink()
    os.mkfifo(folder / "phones.json")
    run = read_run(folder)
    assert not made.exists() and run.values["evil"].startswith("!apply:os.mkdir")
    assert run.remarks == ["phones.json cannot be read: it is no file"]


def test_what_is_no_run_is_one_line_with_the_remedy(tmp_path, monkeypatch):
    empty, exported, around = (tmp_path / name for name in ("empty", "exported", "around"))
    for folder in (empty, exported, around):
        folder.mkdir()
    (exported / "config.json").write_text("{}")
    make_run(around / "seed_1")
    (tmp_path / "file").write_text("")
    for folder, message in {
        "nowhere": "there is no folder .*nowhere; give the output_folder:",
        "file": "file is a file; give",
        "empty": "empty is empty: the run has not begun; give",
        "exported": "exported is an exported encoder, which has no log; give",
        "around": "around is not the folder of a run: .*such as .*around/seed_1$",
    }.items():
        with pytest.raises(ValueError, match=message) as error:
            read_run(tmp_path / folder)
        assert "\n" not in str(error.value)

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.listdir", refuse)
    with pytest.raises(ValueError, match=r"empty cannot be read \(Permission denied\); give"):
        read_run(empty)


def test_names_are_short_and_differ_and_what_cannot_be_read_is_a_line(tmp_path):
    one, other = (make_run(tmp_path / name / "seed_1") for name in ("one", "other"))
    third = make_run(tmp_path / "third")
    runs, remarks = read_runs([one, other, third, tmp_path / "nowhere"])
    assert [run.name for run in runs] == ["one/seed_1", "other/seed_1", "third"]
    assert len(remarks) == 1 and "nowhere" in remarks[0]
    (tmp_path / "link").symlink_to(one)
    with pytest.raises(ValueError, match="link is given twice"):
        read_runs([one, tmp_path / "link"])
    with pytest.raises(ValueError, match="there is no folder"):
        read_runs([tmp_path / "nowhere"])


def test_texts_of_strangers_cannot_steer_a_terminal(tmp_path):
    folder = make_run(tmp_path / "a\x1b[31m\nb")
    with open(folder / "left_out.jsonl", "a") as file:
        line = {"kind": "clip", "step": 1, "id": "\x1b]0;x\x07", "reason": "\ud800 \u202e"}
        file.write(json.dumps(line) + "\n")
    run = read_run(folder)
    assert run.name == "a\\x1b[31m\\nb"
    assert run.left_out[-1] == {
        "kind": "clip", "step": 1, "id": "\\x1b]0;x\\x07", "reason": "\\ud800 \\u202e",
    }  # fmt: skip


def test_numbers_that_no_run_has_are_damage(tmp_path):
    huge = {"perplexity_cap": 1e14, "code_usage": None, "loss": 3.0}  # as long as that to count
    folder = make_run(tmp_path / "run", log=huge)
    (folder / "wer_a.txt").write_text(f"%WER {'9' * 400} [ 2 / 22 ]")
    run = read_run(folder)
    assert run.error_rates == {} and run.verdict[1] == "good"
    assert run.remarks == ["wer_a.txt cannot be read: it does not begin with %WER"]


FILES = (
    "hyperparams.yaml", "metrics.jsonl", "phones.json", "left_out.jsonl", "log.txt", "env.log",
    "probe_spk_id.json", "wer_test-clean.txt", "save/CKPT+2026-01-01+00-00-00+00/CKPT.yaml",
)  # fmt: skip
ODD = (b"[" * 10_000, b"{}", b"[1]", b"\x00", b"\xff\xfe", b"1e999", b'{"step": 1e400}', b"null")
# Values that are JSON, but not what is expected
SWAPS = st.sampled_from(
    [b"null", b"1e308", b"NaN", b"-1", b'"x"', b"[]", b"[[1]]", b"{}", b"9" * 400]
)


@st.composite
def damage(draw):
    """A file, and a function that damages its bytes."""
    kind = draw(st.sampled_from(["cut", "flip", "swap", "replace", "remove", "folder"]))
    place, value = draw(st.floats(0, 1)), draw(st.integers(1, 255))
    swap, odd = draw(SWAPS), draw(st.sampled_from(ODD))

    def apply(data):
        at = int(place * len(data))
        if kind == "cut":
            return data[:at]
        if kind == "flip":
            return data[:at] + bytes(byte ^ value for byte in data[at : at + 1]) + data[at + 1 :]
        if kind == "swap":  # the number that follows becomes another value
            end = next((k for k in range(at, len(data)) if data[k : k + 1].isdigit()), at)
            after = next((k for k in range(end, len(data)) if data[k] not in b"0123456789."), end)
            return data[:end] + swap + data[after:]
        return odd if kind == "replace" else None if kind == "remove" else kind

    return draw(st.sampled_from(FILES)), apply


@hypothesis.settings(max_examples=50)
@hypothesis.given(damages=st.lists(damage(), min_size=1, max_size=3))
def test_whatever_is_damaged_there_is_a_run_or_one_line(whole, tmp_path_factory, damages):
    folder = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(whole, folder)
    for name, apply in damages:
        path = folder / name
        data = apply(path.read_bytes()) if path.is_file() else None
        path.unlink(missing_ok=True) if not path.is_dir() else None
        if data == "folder":
            path.mkdir()
        elif data is not None:
            path.write_bytes(data)
    before = contents(folder)
    try:
        runs, _ = read_runs([folder, whole])
        assert all(line.isprintable() for run in runs for line in run.remarks)
        assert max(map(len, format_comparison(runs).splitlines())) <= 80
        json.dumps(compare_runs(runs), allow_nan=False)
    except ValueError as error:
        raise AssertionError("a run that can be shown in part is shown") from error
    assert contents(folder) == before
    shutil.rmtree(folder.parent)
