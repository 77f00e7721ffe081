"""If one rank has a fault, all ranks handle it together."""

import json

import pytest
from tiny_run import assert_equal_runs, run_on_ranks

pytestmark = pytest.mark.faults
COMMON = {"name": "best_rq", "number_of_epochs": 1, "optimizer_step_limit": 1000}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_that_is_not_finite_on_one_rank_is_left_out_on_all(
    corpus, tmp_path, fault, precision
):
    options = {**COMMON, "corpus": corpus, "precision": precision, "nonfinite_patience": 1}
    whole, once, often = run_on_ranks(
        2,
        [
            {**options, "output_folder": tmp_path / "whole"},
            {**options, "output_folder": tmp_path / "once", "nan_at": [2, 4]},
            {**options, "output_folder": tmp_path / "often", "nan_at": [2, 3]},
        ],
    )
    steps = [rank[1]["log"][-1]["step"] for rank in (*whole, *once)]
    assert len(set(steps)) == 1  # a step that is left out has a number, too
    assert_equal_runs(once[0][1], once[1][1])
    tensors = once[0][1]["tensors"].values()
    assert all(tensor.isfinite().all() for tensor in tensors)
    left_out = [json.loads(line) for line in open(tmp_path / "once" / "left_out.jsonl")]
    second, fourth = ([list(trace[i][2]) for trace, _ in once] for i in (1, 3))
    assert [record["ids"] for record in left_out] == [second, fourth]
    assert [record["step"] for record in left_out] == [2, 4]
    for error, _ in often:
        assert "step 3 left out: the loss is not finite (2 in a row" in str(error)
    fault(
        injected=f"NaN loss on rank 1 of 2 in batches 2 and 4 ({precision})",
        expected="both ranks leave both steps out and write down their clips",
        seen=f"{len(left_out)} of {steps[0]} steps left out on both, parameters equal and finite",
    )
    fault(
        injected=f"NaN loss on rank 1 of 2 in batches 2 and 3, nonfinite_patience 1 ({precision})",
        expected="one error on both ranks, with what to try",
        seen=str(often[0][0])[:60],
    )


def test_ranks_that_differ_do_not_start(corpus, tmp_path, fault):
    options = {**COMMON, "corpus": corpus, "output_folder": tmp_path}
    ((first, second),) = run_on_ranks(2, [{**options, "seed_by_rank": True}])
    assert str(first[0]) == str(second[0])
    fault(
        injected="another seed for the quantiser of rank 1",
        expected="an error before the first step",
        seen=str(first[0])[:60],
    )
