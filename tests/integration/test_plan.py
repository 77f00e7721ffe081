"""A plan of a real recipe: it is whole, it finds planted faults, and it leaves the run alone."""

import hashlib
import io
import json
import os
import re
import shutil
from contextlib import redirect_stdout

import pytest
from tiny_run import hparams_of

from brainquant.cli import main
from brainquant.training.run_lock import RunLock

TINY = "--num_layers 1 --d_model 16 --cb_vocab 32 --batch_seconds 8 --num_buckets 4"
PARTS = ["data", "step", "codes", "memory", "time", "learning_rate"]


def listing(*folders):
    """Every file with its content and the time of its last change, and every folder."""
    found = {}
    for folder in folders:
        for where, _, names in os.walk(folder):
            found[where] = os.stat(where).st_mtime_ns
            for name in names:
                path = os.path.join(where, name)
                with open(path, "rb") as file:
                    digest = hashlib.sha256(file.read()).hexdigest()
                found[path] = (digest, os.stat(path).st_mtime_ns)
    return found


@pytest.fixture(scope="module")
def planned(corpus, pretrained_run, tmp_path_factory):
    """A plan, beside a run that is going on, with a rate that is too high and few steps."""
    folder = tmp_path_factory.mktemp("planned")
    run = folder / "run"
    shutil.copytree(pretrained_run("best_rq"), run)
    options = [
        str(hparams_of("best_rq")), "--data_folder", str(corpus), "--output_folder", str(run),
        "--prepare", "null", *TINY.split(), "--lr", "0.02", "--optimizer_step_limit", "5",
        "--warmup_steps", "0", "--minutes", "0.1", "--output", str(folder / "made" / "plan.json"),
    ]  # fmt: skip
    with RunLock(str(run)), redirect_stdout(io.StringIO()) as shown:
        before = listing(run, corpus)
        main(["plan", *options])
        after = listing(run, corpus)
    plan = json.loads((folder / "made" / "plan.json").read_text("utf-8"))
    return {"before": before, "after": after, "text": shown.getvalue(), "plan": plan}


def test_a_run_that_goes_on_and_its_corpus_stay_as_they_are(planned):
    assert len(planned["before"]) > 10 and planned["after"] == planned["before"]


def test_all_parts_are_known_and_shown_in_80_columns(planned):
    plan, text = planned["plan"], planned["text"]
    assert [name for name in plan if name in PARTS] == PARTS
    assert {name: plan[name]["error"] for name in PARTS if "error" in plan[name]} == {}
    headings = re.findall(r"^[A-Z][\w ]+$", text, re.MULTILINE)
    assert headings == [
        "Data", "One step", "Codes before training", "Memory", "Time", "Learning rate"
    ]  # fmt: skip
    assert max(map(len, text.splitlines()[:-1])) <= 80
    assert re.fullmatch(r"written to .*plan\.json", text.splitlines()[-1])


def test_planted_faults_are_named_by_their_lines(planned):
    findings = {found["name"]: found for found in planned["plan"]["findings"]}
    assert {"high_lr", "few_passes", "short_warmup"} <= findings.keys()
    for name, key in (("high_lr", "lr:"), ("few_passes", "optimizer_step_limit:")):
        assert key in findings[name]["remedy"]
        assert " ".join(findings[name]["text"].split()[:4]) in planned["text"]


def test_the_time_adds_up(planned):
    time = planned["plan"]["time"]
    assert time["steps"] == 5 and time["seconds"] > 0
    assert sum(time["seconds_of_parts"].values()) == pytest.approx(time["seconds"])
    assert time["checkpoint_bytes"] > 10**5


@pytest.mark.parametrize(
    "options, error",
    [
        (["--lrr", "1"], "unknown key 'lrr'"),
        (["--lr", "-1"], "lr"),
        (["--prepare", "null", "--data_folder", "/nowhere"], "train.csv"),
    ],
)
def test_what_is_wrong_with_a_recipe_ends_as_in_a_training(options, error, tmp_path, monkeypatch):
    from brainquant.recipe import main as train

    monkeypatch.chdir(tmp_path)
    ends = []
    for program in (train, lambda argv: main(["plan", *argv])):
        with pytest.raises(SystemExit) as end:
            program([str(hparams_of("best_rq")), "--output_folder", "run", *options])
        ends.append(end.value.code)
    assert ends[0] == ends[1] and ends[0].startswith("error: ") and error in ends[0]
    assert not (tmp_path / "plan.json").exists()
