"""Runs on the units of a teacher: by labels as by the teacher, and without it after a while."""

import shutil
from pathlib import Path

import pytest
import ruamel.yaml
import torch
from tiny_ctc import write_hparams
from tiny_run import HPARAMS, MODELS, assert_equal_runs, run, run_on_ranks, state

from brainquant import load_pretrained
from brainquant.cli import main
from brainquant.errors import RunError
from brainquant.evaluation.subjects import subject_of_run
from brainquant.extraction import QuantiserTokens
from brainquant.publishing import facts
from brainquant.publishing.export import export
from brainquant.recipe import load_run
from brainquant.targets import TeacherCodes

SHORT = {"log_interval": 1, "evaluate": None, "num_workers": 0}


def fragment(name, **arguments):
    """A quantiser as a person has it on the command line."""
    yaml = ruamel.yaml.YAML()
    given = ", ".join(f"{key}: {value}" for key, value in arguments.items())
    path = HPARAMS.parents[2] / f"hparams/quantisers/{name}.yaml"
    return {"make_quantiser": yaml.load(f"!include:{path} {{{given}}}")}


@pytest.fixture(scope="module")
def teacher(pretrained_run):
    """A run of one step."""
    return pretrained_run("best_rq")


def test_labels_of_files_train_as_the_teacher_does(teacher, corpus, tmp_path):
    kmeans, units = tmp_path / "k.safetensors", tmp_path / "units"
    fitting = ["--layer", "2", "--clusters", "12", "--frames", "600", "--output", str(kmeans)]
    main(["kmeans", str(teacher), str(corpus / "audio"), *fitting])
    for split in ("train", "valid"):
        manifest = tmp_path / f"{split}.csv"
        shutil.copy(corpus / f"{split}.csv", manifest)
        options = ["--data_folder", str(corpus), "--kmeans", str(kmeans), "--format", "npz"]
        output = str(units / f"{split}.npz")
        main(["tokens", str(teacher), str(manifest), *options, "--output", output])
    options = {**SHORT, "optimizer_step_limit": 2}
    taught = fragment("teacher", teacher=teacher, layer=2, clusters="null", centroids=kmeans)
    by_teacher, _ = run("best_rq", corpus, tmp_path / "taught", **taught, **options)
    by_labels, _ = run(
        "best_rq", corpus, tmp_path / "labelled", **fragment("labels", labels=units), **options
    )
    one, other = state(by_teacher), state(by_labels)
    for name in ("quantiser.centroids", "quantiser.sizes"):
        one["tensors"].pop(name, None)
        other["tensors"].pop(name, None)
    assert_equal_runs(one, other)
    (units / "valid.npz").unlink()
    with pytest.raises(RunError, match="no labels for .* clips of train_csv and valid_csv, such"):
        run("best_rq", corpus, tmp_path / "half", **fragment("labels", labels=units), **options)


@pytest.fixture
def start(corpus, tmp_path):
    """Starts a run of two steps, whose teacher is a folder, again and again."""

    def start(name, teacher, *, layer=1, **interrupt):
        quantiser = fragment("teacher", teacher=teacher, layer=layer, clusters=12)
        overrides = {**MODELS["best_rq"], **SHORT, **quantiser, "optimizer_step_limit": 2}
        overrides["valid_csv"] = None
        write_hparams(HPARAMS / "best_rq.yaml", tmp_path / name, overrides)
        return run("best_rq", corpus, tmp_path / name, **overrides, **interrupt)[0]

    return start


def test_a_run_goes_on_without_its_teacher_and_is_given_away(start, teacher, tmp_path, monkeypatch):
    # Drawing takes longer than the runs.
    monkeypatch.setattr(facts, "plot_report", lambda *arguments: Path(arguments[2]).touch())
    moved = tmp_path / "teacher"
    shutil.copytree(teacher, moved)
    whole = state(start("whole", moved))
    start("run", moved, interrupt="SIGTERM", at=1)
    shutil.rmtree(moved)
    assert_equal_runs(state(start("run", moved)), whole)
    kept = load_pretrained(tmp_path / "run/needed/make_quantiser.teacher")
    assert kept.fingerprint() == load_pretrained(teacher).fingerprint()

    model = load_pretrained(tmp_path / "run")
    exported = export(tmp_path / "run", tmp_path / "exported")
    assert exported.fingerprint() == model.fingerprint() and exported.num_codebooks == 0
    assert "The quantiser of the pretraining is not here" in (
        tmp_path / "exported/README.md"
    ).read_text("utf-8")
    brain, hparams = load_run(tmp_path / "run")
    assert subject_of_run(brain, hparams).quantiser is None  # the probe has no codes
    with pytest.raises(RunError, match="make_quantiser.layer: 1 then, 2 now: the tables of the"):
        start("run", moved, layer=2)
    with pytest.raises(ValueError, match="has no quantiser, so it has no codes; fit a k-means"):
        QuantiserTokens().prepare(model)
    # It is the teacher of the next iteration.
    assert TeacherCodes(320, tmp_path / "run", 1, clusters=5).codebook_size == 5


@pytest.mark.slow
def test_two_ranks_learn_what_one_learns_that_accumulates(teacher, corpus, tmp_path):
    options = {**SHORT, **fragment("teacher", teacher=teacher, layer=1, clusters=12)}
    options |= {"name": "best_rq", "corpus": corpus, "optimizer_step_limit": 2}
    ((first, second),) = run_on_ranks(2, [{**options, "output_folder": tmp_path / "two"}])
    assert_equal_runs(first[1], second[1])
    alone, _ = run(**options, output_folder=tmp_path / "one", grad_accumulation_factor=2)
    for name in ("train_codes", "quantiser.centroids"):
        assert torch.equal(first[1]["tensors"][name], state(alone)["tensors"][name])
