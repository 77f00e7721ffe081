"""A run opens in another place, without the files outside that it was made with."""

import os
import shutil
from pathlib import Path

import pytest
import ruamel.yaml
import torch
from hyperpyyaml import load_hyperpyyaml
from safetensors.torch import load_file, save_file
from tiny_ctc import FINETUNE, build_ctc, fit_ctc, manifests, options, pretrain, write_hparams
from tiny_run import HPARAMS, MODELS, build, fit

from brainquant import KMeansQuantizer
from brainquant.cli import main
from brainquant.errors import RunError
from brainquant.quantisers.centroid_files import keep_fitted
from brainquant.recipe import load_encoder, load_run
from brainquant.training.needed_files import keep_needed_files

# As a person has it on the command line.
KMEANS = {
    "make_quantiser": ruamel.yaml.YAML().load(
        "!include:../../../hparams/quantisers/kmeans.yaml "
        "{clusters: null, centroids: results/kmeans.safetensors}"
    )
}
CENTROIDS = Path("results/kmeans.safetensors")


def save_centroids(seed=0):
    CENTROIDS.parent.mkdir(exist_ok=True)
    drawn = torch.randn(16, 320, generator=torch.Generator().manual_seed(seed))
    save_file({"centroids": drawn}, CENTROIDS)
    return drawn


@pytest.fixture(scope="module")
def made(corpus, tmp_path_factory):
    """A run with k-means targets, and the folder in which it was started."""
    start = tmp_path_factory.mktemp("start")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(start)
        save_centroids()
        pretrain(
            "best_rq", corpus, start / "runs/then", normalize={"norm_type": "global"}, **KMEANS
        )
    return start


@pytest.fixture
def moved(made, tmp_path, monkeypatch):
    """The same on another machine: the run in another place, and nothing else."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return Path(shutil.copytree(made / "runs/then", tmp_path / "now"))


def test_a_run_with_kmeans_targets_opens_elsewhere(moved, made, corpus):
    centroids = load_file(made / CENTROIDS)["centroids"]
    brain, _ = load_run(moved)
    assert torch.equal(brain.quantiser.centroids, centroids) and brain.optimizer_step == 1
    wavs_BL, lengths_B = torch.randn(1, 16000), torch.tensor([16000])
    encoder = load_encoder(moved).eval()
    encoded, expected = (e(wavs_BL, lengths_B) for e in (encoder, brain.modules.encoder))
    assert torch.equal(encoded.hidden_BTD, expected.hidden_BTD)
    splits = [part for s in ("train", "valid", "test") for part in (f"--{s}", f"{corpus}/{s}.csv")]
    phones = ["--alignments", f"{corpus}/phones", "--train_minutes", "0.1", "--seeds", "1"]
    main(["probe", str(moved), *splits, *phones, "--data_folder", str(corpus)])
    assert (moved / "probe_phones.json").exists() and not os.listdir()


@pytest.fixture
def go_on(corpus, tmp_path, monkeypatch):
    """Starts the run with the same command, up to a number of steps."""
    monkeypatch.chdir(tmp_path)

    def start(steps):
        overrides = {**MODELS["best_rq"], **KMEANS, "optimizer_step_limit": steps}
        brain, hparams = build("best_rq", corpus, tmp_path / "run", **overrides)
        write_hparams(HPARAMS / "best_rq.yaml", tmp_path / "run", overrides)
        brain.run_log.draw_report = lambda *_: None
        fit(brain, hparams)
        return brain

    return start


def test_a_run_goes_on_with_the_file_that_it_began_with(go_on, tmp_path, caplog):
    first = save_centroids(1)
    go_on(1)
    save_centroids(2)
    assert torch.equal(go_on(2).quantiser.centroids, first)
    assert "centroids: results/kmeans.safetensors has changed since the run began" in caplog.text
    shutil.rmtree(CENTROIDS.parent)
    brain = go_on(3)
    assert torch.equal(brain.quantiser.centroids, first) and brain.optimizer_step == 3
    assert "results/kmeans.safetensors is gone; the run goes on with its copy" in caplog.text
    assert torch.equal(load_run(tmp_path / "run")[0].quantiser.centroids, first)
    shutil.rmtree(tmp_path / "run/save")  # begins anew: nothing holds it to the first file
    second = save_centroids(2)
    assert torch.equal(go_on(1).quantiser.centroids, second)
    assert torch.equal(load_run(tmp_path / "run")[0].quantiser.centroids, second)
    shutil.rmtree(tmp_path / "run/needed")
    shutil.rmtree(CENTROIDS.parent)
    with pytest.raises(ValueError, match="centroids: the file results/kmeans.safetensors does not"):
        go_on(2)


@pytest.mark.parametrize("path", ["{run}/k.safetensors", "k.safetensors"])
@pytest.mark.parametrize("key", ["make_quantiser: !name:", "nested:\n    list:\n        - !name:"])
def test_a_path_of_any_call_in_the_yaml_leads_into_the_folder(tmp_path, monkeypatch, path, key):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs/1"
    run.mkdir(parents=True)
    path = path.format(run=run)
    save_file({"centroids": torch.eye(3)}, path)
    call = f"{key}brainquant.KMeansQuantizer {{centroids: {path}}}\n"
    (run / "hyperparams.yaml").write_text(f"output_folder: runs/1\n{call}")
    for went_on in (False, True):
        keep_needed_files(str(run), went_on=went_on)
    shutil.move(run, tmp_path / "moved")
    Path("k.safetensors").unlink(missing_ok=True)
    with open("moved/hyperparams.yaml", encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, {"output_folder": "moved"})
    make = hparams.get("make_quantiser") or hparams["nested"]["list"][0]
    assert torch.equal(make(3).centroids, torch.eye(3))


def test_a_call_that_needs_two_files_has_two_copies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keepers = dict.fromkeys(["centroids", "more"], keep_fitted)
    monkeypatch.setattr(KMeansQuantizer, "files_needed", keepers)
    for name in ("a", "b"):
        save_file({name: torch.eye(3)}, f"{name}.safetensors")
    files = "{centroids: a.safetensors, more: b.safetensors}"
    for _ in range(2):  # a run that begins anew in the same folder replaces both
        Path("run").mkdir(exist_ok=True)
        text = f"output_folder: run\nmake: !name:brainquant.KMeansQuantizer {files}\n"
        Path("run/hyperparams.yaml").write_text(text)
        keep_needed_files("run", went_on=False)
    kept = {name for path in Path("run/needed").rglob("*.safetensors") for name in load_file(path)}
    assert kept == {"a", "b"}


@pytest.fixture
def finetuning(moved, corpus, tmp_path):
    """Starts a fine-tuning on the moved run with one command, again and again."""
    paths = manifests(corpus, tmp_path)

    def start(steps):
        more = {"optimizer_step_limit": steps, "warmup_steps": 1}
        brain, hparams = build_ctc(moved, corpus, paths, tmp_path / "ctc", **more)
        overrides = options(moved, corpus, paths, tmp_path / "ctc", **more)
        write_hparams(FINETUNE, tmp_path / "ctc", overrides)
        fit_ctc(brain, hparams)
        return brain

    return start


def test_a_fine_tuned_run_opens_and_goes_on_without_its_pretraining(finetuning, moved, tmp_path):
    brain = finetuning(1)
    shutil.rmtree(moved)
    copy = Path(shutil.copytree(tmp_path / "ctc", tmp_path / "copy"))
    opened, _ = load_run(copy)
    assert opened.modules["encoder"].normalize.glob_mean.abs().max() > 1
    for name, tensor in brain.modules.state_dict().items():
        assert torch.equal(opened.modules.state_dict()[name], tensor), name
    assert finetuning(2).optimizer_step == 2
    shutil.rmtree(tmp_path / "ctc/save")
    with pytest.raises(RunError, match="encoder has no weights yet: .* no checkpoint in"):
        finetuning(2)
