"""A real trial of a tiny recipe, and real steps of a search for the largest batch."""

import json
import os
import time

import pytest
from tiny_run import hparams_of

from brainquant.planning.batch_search import BatchSearch
from brainquant.planning.trial import Trial, run_trial
from brainquant.planning.trial_process import main, open_trial

TINY = "--num_layers 1 --d_model 16 --cb_vocab 32 --batch_seconds 8 --num_buckets 20".split()


@pytest.fixture(scope="module")
def argv(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "plan"
    return [
        str(hparams_of("best_rq")), "--data_folder", str(corpus), "--prepare", "null",
        "--evaluate", "null", "--output_folder", str(folder), "--quality_minutes", "0",
        *TINY,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(argv):
    """Its Brain is ready for steps."""
    request = {"argv": [*argv, "--device", "cpu"], "capacity": None}
    run, loaders = open_trial(request, until=time.perf_counter() + 600)
    run.prepare(loaders[1])
    return run


def files_below(*folders):
    return {
        os.path.join(at, name)
        for folder in folders
        for at, _, names in os.walk(folder)
        for name in names
    }


def test_a_trial_measures_real_steps_and_leaves_nothing(argv, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = files_below(corpus)
    trial = run_trial([*argv, "--grad_accumulation_factor", "2"], seconds=1.0)
    assert files_below(corpus) == before and files_below(tmp_path) == set()
    assert Trial.from_json(trial.to_json()) == trial
    assert len(trial.steps) >= 2 and trial.accumulation == 2 and trial.parameters > 10_000
    assert {step.batches for step in trial.steps} == {2}
    sizes = [step.padded_seconds for step in trial.steps]
    assert sizes == sorted(sizes) and sizes[-1] <= 0.7 * 2 * 8
    for step in (*trial.steps, *trial.pace):
        assert 0 < step.speech_seconds <= step.padded_seconds and step.seconds > 0
        assert step.peak_bytes > 2**27  # the libraries alone are larger


def test_a_recipe_that_cannot_be_trained_ends_a_trial_with_its_own_line(argv, tmp_path):
    request = {"task": "steps", "argv": [*argv, "--lr", "-1"], "seconds": 1, "capacity": None}
    (tmp_path / "request.json").write_text(json.dumps(request))
    with pytest.raises(SystemExit, match="^error: .*lr must be a number above 0, got -1"):
        main(str(tmp_path))


def test_a_search_goes_on_after_a_step_without_memory(run, monkeypatch):
    of_head = run.brain.modules["head"].forward

    def limited(hidden):
        if run.padded > 7.0:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
        return of_head(hidden)

    def of_batch(clips, of_batch=run.of_batch):
        run.padded = len(clips) * max(run.seconds_of(clips))
        return of_batch(clips)

    monkeypatch.setattr(run.brain.modules["head"], "forward", limited)
    monkeypatch.setattr(run, "of_batch", of_batch)
    found = BatchSearch(run).find()
    assert found.whole, found.tries
    assert found.key == "batch_seconds" and 5 <= found.value <= 8
    assert {tried.fits for tried in found.tries} == {True, False}
    assert all((tried.peak_bytes is None) == (not tried.fits) for tried in found.tries)


def test_a_trial_does_not_try_what_may_not_fit(run, monkeypatch):
    monkeypatch.setattr(run, "hparams", {**run.hparams, "batch_clips": 16})
    floor, _ = run.measure_floor()
    counts = [step.clips for step in run.measure_ramp(floor)]
    assert counts == [1, 2]  # an eighth of 16
    monkeypatch.setattr(run, "most", floor)
    assert [step.clips for step in run.measure_ramp(floor)] == [1]
    assert len(run.measure_memory([], [], floor)) == 1
