"""activation_checkpointing: a run is the same with it and without, on two ranks, too."""

import torch
from tiny_continue import start
from tiny_huggingface import save_model
from tiny_run import assert_equal_runs, run_on_ranks, state


def test_runs_of_both_recipes_are_equal_on_two_ranks(corpus, tmp_path):
    common = {"corpus": corpus, "number_of_epochs": 1, "optimizer_step_limit": 2}
    runs = [
        {"name": name, "output_folder": tmp_path / f"{name} {checkpointing}", **common,
         "activation_checkpointing": checkpointing}
        for name in ("best_rq", "wav2vec2") for checkpointing in (False, True)
    ]  # fmt: skip
    results = run_on_ranks(2, runs)
    for plain, checkpointing in (results[:2], results[2:]):
        for (trace, values), (other_trace, other_values) in zip(plain, checkpointing, strict=True):
            assert trace == other_trace and len(trace) > 1
            assert_equal_runs(values, other_values)


def test_runs_of_a_held_model_are_equal(corpus, tmp_path):
    dropouts = {"hidden_dropout": 0.1, "attention_dropout": 0.1, "feat_quantizer_dropout": 0.1}
    save_model(tmp_path / "model", norm="group", **dropouts)
    changes = {"optimizer_step_limit": 2, "optimizer": {"lr": 0.001}}
    runs = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        brain, _ = start(
            "continue_wav2vec2", tmp_path / "model", corpus, tmp_path / f"run {checkpointing}",
            activation_checkpointing=checkpointing, **changes,
        )  # fmt: skip
        runs.append(state(brain))
    assert_equal_runs(*runs)
