"""Runs that are stopped after each of their batches, for each kind of batches."""

import itertools

import pytest
from tiny_run import assert_equal_runs, run, run_on_ranks, state

pytestmark = pytest.mark.faults

COMMON = {
    "name": "best_rq", "number_of_epochs": 2, "optimizer_step_limit": 1000, "log_interval": 2,
    "dropout": 0.1, "run_options": "--ckpt_interval_steps 3",
}  # fmt: skip
BATCHES = {"plain": {"batch_clips": 4}, "dynamic": {}}


def describe(batches, accumulation, workers, ranks):
    return f"{batches} batches, accumulation {accumulation}, {workers} workers, {ranks} rank(s)"


@pytest.mark.parametrize("interrupt", ["SIGTERM", "death"])
@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("batches", BATCHES)
def test_stopped_after_any_batch(corpus, tmp_path, fault, batches, accumulation, interrupt):
    options = {
        **COMMON, **BATCHES[batches], "corpus": corpus, "grad_accumulation_factor": accumulation,
    }  # fmt: skip
    brain, trace = run(output_folder=tmp_path / "whole", **options)
    whole, stops = state(brain), 0
    for at in itertools.count(1):
        options["output_folder"] = tmp_path / f"stopped {at}"
        # 0 and 2 workers before and after the stop, in turns.
        _, before = run(interrupt=interrupt, at=at, num_workers=at % 2 * 2, **options)
        if before == trace:
            break  # training was over before the stop
        brain, _ = run(num_workers=at // 2 % 2 * 2, **options)
        assert_equal_runs(state(brain), whole)
        stops += 1
    assert stops >= len(trace) - 1
    fault(
        injected=f"{interrupt} after each of {stops} batches "
        f"({describe(batches, accumulation, '0 and 2', 1)})",
        expected="the resumed run equals the whole one to the last bit",
        seen=f"{stops} of {stops} equal",
    )


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("batches", BATCHES)
def test_two_ranks_stopped_after_any_batch(corpus, tmp_path, fault, batches, accumulation):
    options = {
        **COMMON, **BATCHES[batches], "corpus": corpus, "grad_accumulation_factor": accumulation,
    }  # fmt: skip
    # Stops after as many batches as an epoch of one rank has; some are in the validation.
    alone, trace = run(output_folder=tmp_path / "alone", **{**options, "number_of_epochs": 1})
    runs = [{**options, "output_folder": tmp_path / "whole"}]
    for at in range(1, len(trace) + 1):
        folder = tmp_path / f"stopped {at}"
        runs.append({**options, "output_folder": folder, "interrupt": "SIGTERM", "at": at})
        runs.append({**options, "output_folder": folder})
    (whole, *others), stops = run_on_ranks(2, runs), 0
    for stopped, resumed in zip(others[::2], others[1::2]):
        for rank in range(2):
            assert stopped[rank][1] is None
            assert_equal_runs(resumed[rank][1], whole[rank][1])
            assert stopped[rank][0] + resumed[rank][0] == whole[rank][0]
        stops += 1
    fault(
        injected=f"SIGTERM to rank 1 after each of {stops} batches "
        f"({describe(batches, accumulation, 0, 2)})",
        expected="both exit 143, the resumed run equals the whole one to the last bit",
        seen=f"{stops} of {stops} equal",
    )
