"""The ToySpeech recipes, run as a user runs them."""

import math
import re

import pytest

KEYS = set(
    "step epoch stage span loss accuracy code_perplexity code_perplexity_sum perplexity_cap "
    "code_usage dead_codes commonest_code frames masked_ratio speech_per_second".split()
)
MORE_KEYS = {
    "best_rq": {"unigram_loss"},
    "wav2vec2": {"chance_loss", "chance_accuracy", "prob_perplexity", "temp"},
}


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
    shown = re.search(r"In force: (.*)", done.stdout + done.stderr).group(1)
    for text in ("precision bf16", "grad_accumulation_factor 2", "max_grad_norm 0.5",
                 "nonfinite_patience 7", "optimizer_step_limit"):  # fmt: skip
        assert text in shown
    assert max(record["step"] for record in read_metrics("run/debug")) == 4  # 2 epochs x 4 / 2


def test_two_ranks_are_one_rank_that_accumulates(run_recipe, read_metrics):
    options = ["--optimizer_step_limit", 6, "--log_interval", 2]
    run_recipe("best_rq", "--grad_accumulation_factor", 2, *options, output="one")
    done = run_recipe("best_rq", *options, ranks=2, output="two")
    assert "1 rank(s)" not in done.stdout + done.stderr
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


def test_wrong_input_ends_with_one_line(run_recipe):
    done = run_recipe("best_rq", "--learning_rate", 0.1, check=False)
    assert done.returncode == 1
    assert "unknown key 'learning_rate'" in done.stderr and "Traceback" not in done.stderr
