"""Runs that begin with weights: the model as it came, layers of their own rates, and the pull."""

import pytest
import torch
from tiny_huggingface import save_model
from tiny_run import assert_equal_runs, build, fit, run, state

from brainquant.errors import RunError

STEPS = {"number_of_epochs": 2, "log_interval": 2, "batch_clips": 4, "num_workers": 0}
OPTIONS = {**STEPS, "freeze_steps": 2, "layer_decay": 0.5, "pull_to_start": 50.0, "lr": 0.002}


@pytest.fixture(scope="module")
def before(corpus, tmp_path_factory):
    """Runs of two steps by recipe: the folder, and the log."""
    runs = {}
    for name in ("best_rq", "wav2vec2"):
        folder = str(tmp_path_factory.mktemp("before"))
        brain, _ = run(name, corpus, folder, **STEPS, optimizer_step_limit=2)
        runs[name] = folder, state(brain)["log"]
    return runs


@pytest.fixture(scope="module")
def model(corpus, tmp_path_factory):
    """Keys of continue_wav2vec2.yaml for a model of transformers, whose layer norms come first."""
    folder = tmp_path_factory.mktemp("model")
    save_model(folder)
    files = {f"{split}_csv": str(corpus / f"{split}.csv") for split in ("train", "valid")}
    return {"model": str(folder), **files}


def validations(log):
    return [record for record in log if record["stage"] == "valid"]


def test_the_first_line_is_the_loss_that_the_model_had(before, corpus, tmp_path, caplog):
    caplog.set_level("INFO")
    folder, log = before["wav2vec2"]
    brain, _ = run("wav2vec2", corpus, tmp_path, begin_from=folder, optimizer_step_limit=4, **STEPS)
    records = state(brain)["log"]
    first, *later = validations(records)
    loss = log[-1]["loss"]  # of the last validation, with the same masks and negatives
    assert records[0] == first and (first["step"], first["loss"]) == (0, loss)
    assert len(later) == 1 and all(r["start_loss"] == loss for r in [first, *later])
    assert all("start_loss" not in r for r in [*log, *records] if r not in [first, *later])
    assert f"(as it came {loss:.3f}, reference" in caplog.text


def test_a_public_model_is_measured_without_a_run_before(corpus, tmp_path, model):
    brain, _ = run("continue_wav2vec2", corpus, tmp_path, **STEPS, **model, optimizer_step_limit=2)
    first = state(brain)["log"][0]
    assert (first["step"], first["stage"]) == (0, "valid") and first["start_loss"] == first["loss"]


def test_the_validation_in_between_changes_nothing_of_the_training(before, corpus, tmp_path):
    options = {**OPTIONS, "begin_from": before["best_rq"][0], "optimizer_step_limit": 4}
    brain, trace = run("best_rq", corpus, tmp_path / "with", dropout=0.1, **options)
    without, hparams = build("best_rq", corpus, tmp_path / "without", dropout=0.1, **options)
    without.start_loss.is_due = lambda step: False
    fit(without, hparams)
    states = [state(brain), state(without)]
    assert [r["step"] for r in validations(states[0]["log"])] == [2, 4]
    for end in states:
        end["log"] = [r for r in end["log"] if r["stage"] == "train"]
    assert_equal_runs(*states)


def test_a_new_head_learns_before_the_encoder_is_measured_and_changed(before, corpus, tmp_path):
    brain, hparams = build(
        "best_rq", corpus, tmp_path, begin_from=before["best_rq"][0], cb_vocab=16,
        optimizer_step_limit=4, **OPTIONS,
    )  # fmt: skip
    snapshots, batch_end = [], brain.on_fit_batch_end

    def keep(*arguments):
        batch_end(*arguments)
        snapshots.append({name: p.clone() for name, p in brain.modules.named_parameters()})

    brain.on_fit_batch_end = keep
    fit(brain, hparams)
    steps = list(zip(snapshots, snapshots[1:]))[:-1]  # the last one has the learning rate 0
    for number, (one, other) in enumerate(steps, start=2):
        changed = {name for name in one if not torch.equal(one[name], other[name])}
        assert any(name.startswith("head") for name in changed)
        assert any(name.startswith("encoder") for name in changed) == (number > 2)
    assert [r["step"] for r in validations(state(brain)["log"])] == [2, 4]


@pytest.mark.parametrize("at", [2, 4, 7])  # before it, in it, and after it
@pytest.mark.parametrize("interrupt", ["SIGTERM", "death"])
def test_an_interrupted_run_is_the_uninterrupted_one(whole, corpus, tmp_path, interrupt, at):
    options, trace, end = whole
    first = {**options, "run_options": "--ckpt_interval_steps 1"}
    run("continue_wav2vec2", corpus, tmp_path, interrupt=interrupt, at=at, **first)
    brain, after = run("continue_wav2vec2", corpus, tmp_path, **options)
    assert 0 < len(after) < len(trace)
    assert_equal_runs(state(brain), end)


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory, model):
    """A run that nothing interrupts: its options, trace and end."""
    options = {**OPTIONS, **model, "optimizer_step_limit": 8}
    brain, trace = run("continue_wav2vec2", corpus, tmp_path_factory.mktemp("whole"), **options)
    return options, trace, state(brain)


def test_layers_learn_at_their_rates_and_the_log_shows_the_highest(before, corpus, tmp_path):
    brain, _ = run(
        "best_rq", corpus, tmp_path, num_layers=2, layer_decay=0.5, interrupt="SIGTERM", at=2,
        **STEPS,
    )  # fmt: skip
    rates = [group["lr"] for group in brain.optimizer.param_groups]
    assert [lr / rates[-1] for lr in rates] == [0.25, 0.5, 1.0, 1.0]
    assert state(brain)["log"][-1]["lr"] == brain.learning_rate == rates[-1]
    grouped = [id(p) for group in brain.optimizer.param_groups for p in group["params"]]
    trained = {id(p) for p in brain.modules.parameters() if p.requires_grad}
    assert len(grouped) == len(trained) and set(grouped) == trained


def test_a_trial_and_a_run_without_validation_speech_go_on(before, corpus, tmp_path, caplog):
    caplog.set_level("INFO")
    options = {**STEPS, "begin_from": before["best_rq"][0], "optimizer_step_limit": 2}
    trial, _ = run("best_rq", corpus, tmp_path / "a", run_options="--debug", **options)
    assert [r["step"] for r in validations(state(trial)["log"])] == [0, 2]
    options |= {"valid_csv": None, "evaluate": None}
    brain, _ = run("best_rq", corpus, tmp_path / "b", **options)
    assert not validations(state(brain)["log"])
    assert "valid_csv is null: the log cannot say" in caplog.text


def test_a_pull_needs_weights_to_pull_to(corpus, tmp_path):
    options = {**STEPS, "optimizer_step_limit": 1}
    with pytest.raises(RunError, match="pull_to_start is 2, but the weights .* are random; set"):
        run("best_rq", corpus, tmp_path, pull_to_start=2.0, **options)
    run("best_rq", corpus, tmp_path, **options)
    options = {**STEPS, "pull_to_start": 2.0, "optimizer_step_limit": 2}
    with pytest.raises(RunError, match="pull_to_start is 2, but the checkpoint lacks"):
        run("best_rq", corpus, tmp_path, **options)
    with pytest.raises(ValueError, match="remove_vector_weight_decay has no effect here"):
        build("best_rq", corpus, tmp_path, "--remove_vector_weight_decay", layer_decay=0.5)
