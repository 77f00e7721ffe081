"""Runs that continue a wav2vec 2.0 model of transformers: resumed, on two ranks, in bfloat16."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny_huggingface import save_model
from tiny_run import assert_equal_runs, build, fit, run, run_on_ranks, state

from brainquant.training.resolve import write_hparams

NAME = "continue_wav2vec2"
# All that draws: dropout of every kind, layers that are dropped, masks, negatives, Gumbel noise.
DRAWS = {
    "norm": "group", "layerdrop": 0.3, "hidden_dropout": 0.1, "attention_dropout": 0.1,
    "activation_dropout": 0.1, "feat_proj_dropout": 0.1, "feat_quantizer_dropout": 0.1,
    "mask_feature_prob": 0.5, "mask_feature_length": 4,
}  # fmt: skip
EPOCHS = {
    "number_of_epochs": 2, "optimizer_step_limit": 1000, "log_interval": 2, "batch_clips": 4,
    "num_workers": 0, "precision": "fp32",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a model that draws all it can, which no test changes."""
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, **DRAWS)
    return folder


@pytest.fixture(scope="module")
def whole(model, corpus, tmp_path_factory):
    """The trace and the end of a run that nothing interrupts."""
    options = {**EPOCHS, "model": str(model)}
    brain, trace = run(NAME, corpus, tmp_path_factory.mktemp("whole"), **options)
    return trace, state(brain)


# Batches: two in the validation of the model as it came, five in the first epoch, then two again.
@pytest.mark.parametrize(
    "interrupt, at, trained",
    [("SIGTERM", 2, 0), ("SIGTERM", 4, 2), ("death", 6, 4), ("SIGTERM", 8, 5)],
)
def test_a_run_goes_on_to_the_last_bit_without_its_model(
    whole, model, corpus, tmp_path, interrupt, at, trained
):
    trace, end = whole
    copy = shutil.copytree(model, tmp_path / "model")
    options = {**EPOCHS, "model": str(copy), "run_options": "--ckpt_interval_steps 2"}
    folder = tmp_path / "run"
    _, hparams = build(NAME, corpus, folder, **options)
    write_hparams(folder, hparams["hparams_file"], hparams["overrides"])
    _, before = run(NAME, corpus, folder, interrupt=interrupt, at=at, **options)
    shutil.rmtree(copy)
    brain, after = run(NAME, corpus, folder, **options)
    assert len(before) == trained and len(trace) == 10
    if interrupt == "SIGTERM":
        assert before + after == trace
    else:  # what came after the last checkpoint is done again, alike
        assert before == trace[: len(before)] and after == trace[-len(after) :]
    assert_equal_runs(state(brain), end)


def test_two_ranks_are_one_rank_that_accumulates(model, corpus, tmp_path):
    options = {**EPOCHS, "optimizer_step_limit": 2, "name": NAME, "corpus": corpus}
    # Frozen convolutions have no gradients, which DistributedDataParallel would wait for.
    options |= {"model": str(model), "freeze_extractor": True, "layer_decay": 0.5}
    stop = {"interrupt": "SIGTERM", "at": 1}  # in the validation of the model as it came
    whole, stopped, resumed = run_on_ranks(
        2,
        [
            {**options, "output_folder": tmp_path / "whole"},
            {**options, "output_folder": tmp_path / "stopped", **stop},
            {**options, "output_folder": tmp_path / "stopped"},
        ],
    )
    for rank in range(2):
        assert_equal_runs(resumed[rank][1], whole[rank][1])
        assert stopped[rank][0] + resumed[rank][0] == whole[rank][0]
    alone, _ = run(output_folder=tmp_path / "alone", **{**options, "grad_accumulation_factor": 2})
    assert_close_runs(whole[0][1], state(alone))
    came, now = load_file(model / "model.safetensors"), state(alone)["tensors"]
    ours = {name: name.replace("wav2vec2", "encoder.model") for name in came}
    changed = {n for n in came if ours[n] in now and not torch.equal(now[ours[n]], came[n])}
    assert any("encoder.layers" in name for name in changed)
    assert not any("feature_extractor" in name for name in changed)


def assert_close_runs(one, other):
    assert [r["step"] for r in one["log"]] == [r["step"] for r in other["log"]]
    for key in ("loss", "code_perplexity_sum", "aux_loss", "grad_norm"):
        values = ([r[key] for r in of["log"] if key in r] for of in (one, other))
        assert next(values) == pytest.approx(next(values), rel=1e-3), key
    tensors = {name.replace(".module.", "."): t for name, t in one["tensors"].items()}
    assert tensors.keys() == other["tensors"].keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, other["tensors"][name], rtol=1e-3, atol=1e-4)


def test_the_log_has_the_numbers_of_the_model_that_is_held(whole, model, corpus, tmp_path):
    _, end = whole
    brain, hparams = build(NAME, corpus, tmp_path, model=str(model), **EPOCHS)
    # The shortest clip that holds a masked span of ten frames.
    assert brain.min_samples == 400 + 9 * 320
    codes = 2 * 10
    assert float(brain.quantiser.max_ent) == pytest.approx(math.log(codes))
    for record in end["log"]:
        assert record["chance_loss"] == pytest.approx(math.log(11))
        assert record["temp"] == 0.5
        assert len(record["code_perplexity"]) == 2
        assert sum(record["code_perplexity"]) == pytest.approx(record["code_perplexity_sum"])
        assert 2 <= record["code_perplexity_sum"] <= codes and record["perplexity_cap"] <= 10
        assert 2 <= record["prob_perplexity"] <= codes
        assert record["aux_loss"] == pytest.approx(1 - record["prob_perplexity"] / codes)
        assert record["feature_penalty"] > 0 and 0.4 < record["masked_ratio"] < 0.6


@pytest.mark.parametrize("options", ["--precision bf16", "--debug"])
def test_a_run_in_bfloat16_and_a_trial_come_to_their_end(model, corpus, tmp_path, options):
    overrides = {**EPOCHS, "model": str(model), "optimizer_step_limit": 4}
    del overrides["precision"]
    brain, hparams = build(NAME, corpus, tmp_path, options, **overrides)
    before = {name: p.clone() for name, p in brain.modules.named_parameters()}
    fit(brain, hparams)
    assert brain.optimizer_step == 4
    moved = [n for n, p in brain.modules.named_parameters() if not torch.equal(p, before[n])]
    unused = {"quantiser.max_ent"}
    assert set(before) - set(moved) <= unused
    with open(brain.run_log.metrics_file, encoding="utf-8") as file:
        assert all(math.isfinite(json.loads(line)["loss"]) for line in file)
