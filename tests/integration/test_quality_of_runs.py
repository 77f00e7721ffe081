"""The label-free quality in a run: what is logged and kept; the training stays the same.

test_online_codebooks.py has it on two ranks.
"""

import json

import pytest
from tiny_run import assert_equal_runs, run, state

from brainquant.errors import RunError
from brainquant.monitoring.quality import LAYER_NUMBERS
from brainquant.training import quality
from brainquant.training.quality import Quality

OPTIONS = {
    "number_of_epochs": 2, "optimizer_step_limit": 1000, "log_interval": 2, "num_workers": 0,
    "dropout": 0.1, "num_layers": 2, "quality_minutes": 0.1, "batch_clips": 4,
}  # fmt: skip
NUMBERS = [
    "effective_rank", "mean_effective_rank", "units_repeat", "mean_units_repeat",
    "start_effective_rank", "start_mean_effective_rank",
    "start_units_repeat", "start_mean_units_repeat",
]  # fmt: skip


@pytest.fixture
def at_each_validation(monkeypatch):
    monkeypatch.setitem(quality.SPARSE, "cpu", 0)


def validations(log):
    return [record for record in log if record["stage"] == "valid"]


def test_a_run_is_the_same_without_it_and_after_a_resume(corpus, tmp_path, at_each_validation):
    brain, trace = run("best_rq", corpus, tmp_path / "whole", **OPTIONS)
    whole = state(brain)
    first, second = validations(whole["log"])
    assert set(NUMBERS) <= set(first) and first["effective_rank"] != second["effective_rank"]
    assert first["start_units_repeat"] == second["start_units_repeat"]
    line = (tmp_path / "whole" / "metrics.jsonl").read_text("utf-8").splitlines()[-1]
    assert json.loads(line)["units_repeat"] == second["units_repeat"]
    at = sum(epoch == 1 for epoch, *_ in trace) + 2  # after the first validation has begun
    options = {**OPTIONS, "run_options": "--ckpt_interval_steps 2"}
    run("best_rq", corpus, tmp_path / "cut", interrupt="death", at=at, **options)
    brain, _ = run("best_rq", corpus, tmp_path / "cut", **OPTIONS)
    assert_equal_runs(state(brain), whole)
    brain, _ = run("best_rq", corpus, tmp_path / "without", **{**OPTIONS, "quality_minutes": 0})
    without = state(brain)
    for record in whole["log"]:
        for name in NUMBERS:
            record.pop(name, None)
    assert_equal_runs(without, whole)


def test_the_checkpoint_with_the_best_units_is_kept(
    corpus, tmp_path, monkeypatch, at_each_validation
):
    units = iter([0.0, 0.1, 0.3, 0.2, 0.1])

    def measure(self, encoder, dataset, step, tick):
        means = {"mean_effective_rank": 1.0, "mean_units_repeat": next(units)}
        return {**{name: [1.0] for name in LAYER_NUMBERS}, **means}

    monkeypatch.setattr(Quality, "measure", measure)
    options = {**OPTIONS, "number_of_epochs": 4, "keep_checkpoints": 1, "keep_best_by": "units"}
    brain, _ = run("best_rq", corpus, tmp_path, **options)
    kept = brain.checkpointer.find_checkpoints(max_key="valid_units")
    assert [(c.meta["epoch"], c.meta["valid_units"]) for c in kept] == [(2, 0.3), (4, 0.1)]
    assert all("valid_loss" in checkpoint.meta for checkpoint in kept)


@pytest.mark.faults
def test_best_checkpoints_that_nothing_could_choose_are_refused(corpus, tmp_path):
    options = {**OPTIONS, "quality_minutes": 1e-4, "keep_best_by": "units"}
    with pytest.raises(RunError, match="keep_best_by is units, but valid_csv has too little sp"):
        run("best_rq", corpus, tmp_path, **options)
