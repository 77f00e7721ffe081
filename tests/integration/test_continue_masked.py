"""Runs of masked prediction with encoders of transformers, resumed without their model."""

import json
import shutil

import pytest
import ruamel.yaml
import torch
from safetensors.torch import load_file, save_file
from tiny_huggingface import save_model
from tiny_run import assert_equal_runs, build, fit, hparams_of, run, state

from brainquant import recipe
from brainquant.cli import main
from brainquant.errors import RunError
from brainquant.recipe import load_run
from brainquant.training.resolve import write_hparams

NAME = "continue_masked"
DROPS = {
    "layerdrop": 0.3, "hidden_dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1,
    "feat_proj_dropout": 0.1, "mask_time_prob": 0.5, "mask_feature_prob": 0.5,
    "mask_feature_length": 4,
}  # fmt: skip
MODELS = {
    "hubert": ("HubertModel", {"norm": "group"}),
    "w2v-bert": ("Wav2Vec2BertModel", {}),
    "layer": ("WavLMForCTC", {"vocab_size": 5}),
}
OPTIONS = {
    "number_of_epochs": 1, "optimizer_step_limit": 1000, "log_interval": 2, "num_workers": 0,
    "batch_seconds": 16, "unmasked_weight": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of models that draw all they can."""
    folder = tmp_path_factory.mktemp("models")
    for name, (kind, changes) in MODELS.items():
        save_model(folder / name, kind, **DROPS, **changes)
    return folder


def options(model, **changes):
    targets = {"target_layer": 1} if model.name == "layer" else {}
    return {**OPTIONS, **targets, "model": str(model), **changes}


def start(corpus, folder, *, interrupt=None, at=None, **changes):
    """Trains, as the same command does each time; returns the Brain and its trace."""
    _, hparams = build(NAME, corpus, folder, **changes)
    write_hparams(folder, hparams["hparams_file"], hparams["overrides"])
    return run(NAME, corpus, folder, interrupt=interrupt, at=at, **changes)


@pytest.mark.parametrize("name", ["hubert", "w2v-bert"])
def test_the_command_of_the_recipe_prepares_audio_and_trains(name, models, corpus, tmp_path):
    options = {
        "source": corpus / "audio", "model": models / name, "output_folder": tmp_path / "run",
        "optimizer_step_limit": 2, "batch_seconds": 8, "num_buckets": 4, "num_workers": 0,
        "grad_accumulation_factor": 1, "cb_vocab": 32, "valid_share": 0.2,
    }  # fmt: skip
    command = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    recipe.main([str(hparams_of(NAME)), *command, "--noprogressbar"])
    lines = (tmp_path / "run/metrics.jsonl").read_text("utf-8").splitlines()
    stages = {record["stage"]: record for record in map(json.loads, lines)}
    assert {"train", "valid"} <= {*stages} and stages["train"]["step"] == 2
    assert 0.3 < stages["train"]["masked_ratio"] < 0.6
    kept = sorted(path.name for path in (tmp_path / "run/needed").iterdir())
    assert kept == ["encoder.model", "encoder.targets.model"]


@pytest.mark.parametrize("name", MODELS)
def test_a_run_goes_on_to_the_last_bit_without_its_model(name, models, corpus, tmp_path, caplog):
    whole, trace = run(NAME, corpus, tmp_path / "whole", **options(models / name))
    assert len(trace) > 3
    copy = shutil.copytree(models / name, tmp_path / name)
    folder = tmp_path / "run"
    _, before = start(corpus, folder, interrupt="SIGTERM", at=2, **options(copy))
    shutil.rmtree(copy)
    brain, after = run(NAME, corpus, folder, **options(copy))
    assert before + after == trace and len(before) == 2
    assert f"{copy} is gone; the run goes on with its copy" in caplog.text
    assert_equal_runs(state(brain), state(whole))
    # Its codes are there in another place, too.
    moved, _ = load_run(shutil.move(folder, tmp_path / "moved"))
    wavs_BL, lengths_B = torch.randn(1, 16000), torch.tensor([16000])
    codes = [
        b.quantiser.encode(b.raw("encoder").quantiser_inputs(wavs_BL, lengths_B)[0])
        for b in (brain, moved)
    ]
    assert torch.equal(*codes)


def test_targets_of_a_layer_are_those_of_the_model_that_the_run_began_with(
    models, corpus, tmp_path
):
    copy, folder = shutil.copytree(models / "layer", tmp_path / "layer"), tmp_path / "run"
    one = options(copy, number_of_epochs=9, optimizer_step_limit=1, warmup_steps=1)
    two = {**one, "optimizer_step_limit": 2}
    first, _ = start(corpus, folder, **one)
    teacher = first.raw("encoder").targets.encoder
    came = load_file(copy / "model.safetensors")
    for name, tensor in teacher.model.state_dict().items():
        if name.startswith("encoder.layers"):
            assert torch.equal(tensor, came[f"wavlm.{name}"]), name
    kept = folder / "needed/encoder.targets.model"
    assert json.loads((kept / "config.json").read_text("utf-8"))["num_hidden_layers"] == 1
    assert not any(n.startswith("targets") for n in first.raw("encoder").state_dict())

    changed = {**came, "wavlm.encoder.layers.0.layer_norm.bias": torch.ones(16)}
    save_file(changed, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(RunError, match="layer has changed since the run began.*move it away"):
        start(corpus, folder, **two)
    # Another layer is what the command asks for; its copy replaces the first.
    again, _ = start(corpus, folder, **{**two, "target_layer": 2})
    assert again.optimizer_step == 2 and len(again.raw("encoder").targets.encoder.layers) == 2
    assert json.loads((kept / "config.json").read_text("utf-8"))["num_hidden_layers"] == 2


def test_codes_are_the_nearest_centroids_of_a_layer(models, corpus, tmp_path, monkeypatch):
    """As in HuBERT: k-means of a layer first, then the prediction of its clusters."""
    monkeypatch.chdir(tmp_path)
    keys = {
        "model": models / "layer", "target_layer": 1, "source": "unused", "prepare": "null",
        "train_csv": corpus / "train.csv", "valid_csv": "null", "data_folder": corpus,
        "output_folder": "unused", "num_workers": 0, "num_buckets": 4,
    }  # fmt: skip
    command = [str(hparams_of(NAME)), "--output", "results/kmeans.safetensors", "--frames", "400"]
    command += [part for key, value in keys.items() for part in (f"--{key}", str(value))]
    main(["kmeans", *command, "--clusters", "8", "--noprogressbar"])
    kmeans = ruamel.yaml.YAML().load(
        "!include:../../../hparams/quantisers/kmeans.yaml "
        "{clusters: null, centroids: results/kmeans.safetensors}"
    )
    changes = options(models / "layer", optimizer_step_limit=2, make_quantiser=kmeans)
    brain, hparams = build(NAME, corpus, tmp_path / "run", **changes)
    fit(brain, hparams)
    assert brain.quantiser.centroids.shape == (8, 16)
    counts_GV = brain.tally.run.counts
    assert counts_GV.shape == (1, 8) and (counts_GV > 0).sum() > 5
    with pytest.raises(ValueError, match=r"centroids must be of shape \(clusters, 160\)"):
        build(NAME, corpus, tmp_path / "other", **{**changes, "target_layer": None})
