"""The ToySpeech recipes, run as a user runs them."""

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from brainquant.recipe import load_run

ROOT = Path(__file__).resolve().parents[2]

KEYS = set(
    "step epoch stage span loss accuracy code_perplexity code_perplexity_sum perplexity_cap "
    "code_usage dead_codes commonest_code frames masked_ratio speech_per_second "
    "speech_seconds run_seconds".split()
)
MORE_KEYS = {
    "best_rq": {"unigram_loss"},
    "wav2vec2": {"chance_loss", "chance_accuracy", "prob_perplexity", "temp"},
}


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", ["best_rq", "wav2vec2"])
def test_debug_runs_and_leaves_the_real_run_alone(name, run_recipe, tmp_path):
    (tmp_path / "run").mkdir()
    names = ("metrics.jsonl", "train_log.txt")
    for file in names:
        (tmp_path / "run" / file).write_text("precious")
    run_recipe(name, "--debug", "--device", "cpu")
    for file in names:
        assert (tmp_path / "run" / file).read_text() == "precious"
    assert (tmp_path / "run" / "debug" / "report.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["best_rq", pytest.param("wav2vec2", marks=pytest.mark.slow)])
def test_a_short_run_learns_logs_resumes_and_ends(name, run_recipe, read_metrics, tmp_path):
    options = ["--lr", "0.001", "--warmup_steps", "5", "--log_interval", "5"]
    run_recipe(name, "--optimizer_step_limit", 20, *options)
    first = read_metrics()
    assert KEYS | MORE_KEYS[name] | {"lr", "grad_norm"} <= set(first[-1])
    assert first[-1]["step"] == 20

    # Started again with a later end it goes on from the checkpoint; no step is there twice.
    run_recipe(name, "--optimizer_step_limit", 60, *options)
    second = read_metrics()
    steps = [record["step"] for record in second if record["span"] == "interval"]
    assert steps == sorted(set(steps)) and steps[-1] == 60
    assert second[: len(first)] == first
    assert second[-1]["loss"] < second[0]["loss"]
    if name == "best_rq":
        valid = read_metrics(stage="valid")
        assert valid[-1]["loss"] < valid[0]["loss"]
    if name == "wav2vec2":
        after_resume = next(r for r in second if r["step"] > 20)
        decay = 0.999 ** (after_resume["step"] - 1)
        assert after_resume["temp"] == pytest.approx(2.0 * decay)
    assert (tmp_path / "run" / "report.png").read_bytes()[1:4] == b"PNG"
    assert "valid loss" in (tmp_path / "run" / "train_log.txt").read_text("utf-8")

    # A finished run has nothing to do.
    run_recipe(name, "--optimizer_step_limit", 60, *options)
    assert read_metrics() == second


def test_run_options_of_yaml_and_command_line_are_in_force(run_recipe, read_metrics):
    done = run_recipe(
        "best_rq", "--debug", "--precision=bf16", "--grad_accumulation_factor", 2,
        "--max_grad_norm", 0.5, "--nonfinite_patience", 7, "--debug_batches", 4,
    )  # fmt: skip
    shown = re.search(r"In force:\n((  .*\n)*)", done.stdout + done.stderr).group(1)
    for text in ("precision: bf16", "grad_accumulation_factor: 2", "max_grad_norm: 0.5",
                 "nonfinite_patience: 7", "optimizer_step_limit: "):  # fmt: skip
        assert text in shown
    assert max(record["step"] for record in read_metrics("run/debug")) == 4  # 2 epochs x 4 / 2


def test_two_ranks_are_one_rank_that_accumulates(run_recipe, read_metrics):
    options = ["--optimizer_step_limit", 6, "--log_interval", 2]
    run_recipe("best_rq", "--grad_accumulation_factor", 2, *options, output="one")
    done = run_recipe("best_rq", *options, ranks=2, output="two")
    shown = done.stdout + done.stderr
    assert "1 ranks" not in shown
    assert shown.count("This run:\n  data    ") == shown.count("x 2 ranks)") == 1
    for stage in ("train", "valid"):
        one, two = read_metrics("one", stage), read_metrics("two", stage)
        assert len(one) == len(two) > 0
        for record_1, record_2 in zip(one, two):
            for key in ("step", "frames", "dead_codes"):
                assert record_1[key] == record_2[key]
            assert record_1["code_perplexity"] == pytest.approx(record_2["code_perplexity"], 1e-5)
            # Means of batches, weighted by rank or by accumulation alike.
            assert record_1["loss"] == pytest.approx(record_2["loss"], 1e-3)


@pytest.mark.slow
def test_wav2vec2_runs_on_two_ranks(run_recipe, read_metrics):
    run_recipe("wav2vec2", "--optimizer_step_limit", 4, "--log_interval", 1, ranks=2)
    losses = [record["loss"] for record in read_metrics()]
    assert len(losses) >= 4 and all(map(math.isfinite, losses))


def test_a_quantiser_is_swapped_from_the_command_line(run_recipe, read_metrics):
    fragment = "!include:../../../hparams/quantisers/gumbel.yaml"
    run_recipe("best_rq", "--debug", "--make_quantiser", fragment)
    assert len(read_metrics("run/debug")[0]["code_perplexity"]) == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--learning_rate", "0.1"], "unknown key 'learning_rate'"),
        slow(["--mask_length", "3"], "mask_length is 3 frames"),
        slow(["--mask_ratio", "1e-12"], "no target was seen in training"),
        slow(["--max_grad_norm", "abc"], "max_grad_norm"),
        slow(["--transformer", "{nhead: 5}"], "transformer: "),
        slow(["--train_csv", "/nowhere/talks #1"], "/nowhere/talks #1"),
    ],
)
def test_wrong_input_ends_with_one_line(run_recipe, arguments, message):
    done = run_recipe("best_rq", *arguments, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert message in done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_own_speech_of_an_odd_path_trains_and_is_opened_again(corpus, tmp_path):
    source = tmp_path / "talks #1: x<y> 100%"
    shutil.copytree(corpus, source)
    recipe = ROOT / "recipes/OwnSpeech"
    options = ["--source", source.name, "--output_folder", "2024 #2"]
    options += "--debug --debug_persistently --num_layers 1".split()
    command = [sys.executable, recipe / "train.py", recipe / "hparams/best_rq.yaml", *options,
               "--d_model", "16", "--batch_seconds", "8", "--num_workers", "0"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    brain, _ = load_run(str(tmp_path / "2024 #2"))
    assert brain.hparams.source == source.name and brain.optimizer_step > 0
