"""The first lines of a training: what it is about to do, without a look at any audio."""

import re
from types import SimpleNamespace

import pytest
from tiny_ctc import build_ctc, manifests
from tiny_run import MODELS, build

from brainquant.planning import duration, overview
from brainquant.planning.overview import make_overview, show_overview
from brainquant.recipe import build_loaders


@pytest.fixture(autouse=True)
def no_audio(monkeypatch):
    """Reading a clip fails."""

    def read(*_):
        raise AssertionError("the overview reads no audio")

    monkeypatch.setattr("brainquant.data.audio.AudioReader.__call__", read)


def made(name, corpus, folder, **overrides):
    brain, hparams = build(name, corpus, folder, **overrides)
    return make_overview(brain, hparams, *build_loaders(brain, hparams))


def found(section):
    return [finding.name for finding in section.findings]


@pytest.mark.parametrize("name", [n for n in MODELS if not n.startswith("continue")])
def test_every_recipe_has_a_few_lines(name, corpus, tmp_path):
    section = made(name, corpus, tmp_path)
    assert [line.split()[0] for line in section.lines] == [
        "data", "step", "length", "model", "disk",
    ]  # fmt: skip
    assert max(map(len, section.lines)) <= 78
    assert re.fullmatch(
        r"data    [\d.]+ (s|min) in \d+ clips; validation [\d.]+ s", section.lines[0]
    )


def test_clips_that_are_left_out_are_counted(corpus, tmp_path):
    section = made("best_rq", corpus, tmp_path, min_seconds=4, valid_csv=None, evaluate=None)
    left_out = section.facts["data"]["train"]["left_out"]["short"]
    assert left_out and section.lines[0].endswith(f" clips, {left_out} left out")


def test_the_limit_that_comes_first_and_its_passes(corpus, tmp_path):
    section = made("best_rq", corpus, tmp_path / "a", optimizer_step_limit=3)
    steps = section.facts["steps_of_epoch"]
    assert f"length  3 steps (optimizer_step_limit), {3 / steps:.2g} passes" in section.lines[2]
    assert "few_passes" in found(section)
    section = made("best_rq", corpus, tmp_path / "b", number_of_epochs=5)
    assert f"length  {5 * steps} steps (number_of_epochs), 5.0 passes" in section.lines[2]
    assert not {"few_passes", "many_passes"} & set(found(section))
    section = made(
        "best_rq", corpus, tmp_path / "c", number_of_epochs=9999, optimizer_step_limit=10**6
    )
    assert "many_passes" in found(section)


def test_a_checkpoint_has_about_the_size_that_is_said(
    corpus, pretrained_run, tmp_path, monkeypatch
):
    monkeypatch.undo()  # the pretraining reads
    [saved] = (pretrained_run("best_rq") / "save").glob("CKPT*")
    size = sum(file.stat().st_size for file in saved.iterdir())
    assert made("best_rq", corpus, tmp_path, num_layers=2).facts["checkpoint_bytes"] == (
        pytest.approx(size, rel=0.2)
    )
    monkeypatch.setattr(duration.shutil, "disk_usage", lambda _: SimpleNamespace(free=size))
    assert "disk_too_small" in found(made("best_rq", corpus, tmp_path))


def test_runs_without_validation_checkpoints_or_limits(corpus, tmp_path):
    brain, hparams = build("best_rq", corpus, tmp_path, valid_csv=None, evaluate=None)
    brain.checkpointer = None
    brain.optimizer_step_limit, hparams["epoch_counter"] = None, object()
    section = make_overview(brain, hparams, *build_loaders(brain, hparams))
    assert [line.split()[0] for line in section.lines] == ["data", "step", "model"]
    assert "validation" not in section.lines[0]


def test_a_fine_tuning_has_an_overview(corpus, pretrained_run, tmp_path, monkeypatch):
    monkeypatch.undo()  # the pretraining reads
    pretrained = pretrained_run("best_rq")
    brain, hparams = build_ctc(pretrained, corpus, manifests(corpus, tmp_path), tmp_path / "ctc")
    assert len(make_overview(brain, hparams, *build_loaders(brain, hparams)).lines) == 5


def test_it_is_logged_once_by_the_main_process_and_never_ends_a_run(
    corpus, tmp_path, monkeypatch, caplog
):
    brain, hparams = build("best_rq", corpus, tmp_path, optimizer_step_limit=3)
    loaders = build_loaders(brain, hparams)
    with caplog.at_level("INFO", "brainquant.planning.overview"):
        caplog.clear()
        show_overview(brain, hparams, *loaders)
        info, *warnings = caplog.records
        assert info.message.startswith("This run:\n  data    ")
        assert {w.levelname for w in warnings} == {"WARNING"}
        assert any("set optimizer_step_limit: " in w.message for w in warnings)
        caplog.clear()
        monkeypatch.setattr(overview, "rank", lambda: 1)
        show_overview(brain, hparams, *loaders)
        monkeypatch.setattr(overview, "rank", lambda: 0)
        brain.debug = True
        show_overview(brain, hparams, *loaders)
        assert not caplog.records
        brain.debug = False
        show_overview(brain, {}, *loaders)
        [record] = caplog.records
        assert "has failed; the run goes on" in record.message and record.exc_info
