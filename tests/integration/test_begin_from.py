"""A run that begins with the weights of another one has all else anew."""

import pickle
import re
import shutil

import pytest
import torch
from tiny_run import assert_equal_runs, build, fit, run, state

from brainquant.errors import RunError
from brainquant.training.begin_from import load_weights
from brainquant.training.checkpoint_folder import write_manifest
from brainquant.training.checkpoints import Checkpointer

OPTIONS = {"number_of_epochs": 2, "optimizer_step_limit": 6, "log_interval": 2}


@pytest.fixture(scope="module")
def before(corpus, tmp_path_factory):
    """The folder of a run of each recipe, and its Brain."""
    runs = {}
    for name in ("best_rq", "wav2vec2"):
        folder = str(tmp_path_factory.mktemp("before"))
        brain, hparams = build(name, corpus, folder, **{**OPTIONS, "optimizer_step_limit": 2})
        brain.run_log.draw_report = lambda *_: None  # longer than the training
        fit(brain, hparams)
        runs[name] = folder, brain
    return runs


def begin(name, corpus, folder, **overrides):
    """The Brain as it is before its first step."""
    brain, hparams = build(name, corpus, folder, **{**OPTIONS, **overrides})
    brain._fit_train = brain._fit_valid = lambda **_: None
    fit(brain, hparams)
    return brain


def equal(one, other):
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("name", ["best_rq", "wav2vec2"])
def test_weights_are_taken_and_all_else_is_new(before, corpus, tmp_path, name, caplog):
    folder, trained = before[name]
    brain = begin(name, corpus, tmp_path, begin_from=folder, seed=99, max_seconds=3.0)
    for module in brain.modules:
        whitened = name == "best_rq" and module == "quantiser"  # to the clips of now
        assert equal(brain.modules[module], trained.modules[module]) != whitened
    assert brain.optimizer_step == 0 and not brain.optimizer.state
    assert trained.tally.run.counts.any() and not brain.tally.run.counts.any()
    (line,) = [text for text in caplog.messages if "Begins with weights of" in text]
    taken, new = line.split(" New: ")
    assert "encoder" in taken and "optimiser, schedule, epochs and counts" in new
    if name == "best_rq":
        assert "quantiser (of this YAML and corpus)" in new
        assert brain.quantiser.frames_to_fit == 0


def test_the_statistics_of_a_normalisation_are_those_of_the_new_run(corpus, tmp_path):
    options = {"normalize": {"norm_type": "global"}, "optimizer_step_limit": 1}
    trained, _ = run("best_rq", corpus, tmp_path / "before", **options)
    brain = begin(
        "best_rq", corpus, tmp_path / "new", begin_from=str(tmp_path / "before"), **options
    )
    assert trained.modules.encoder.normalize.count and not brain.modules.encoder.normalize.count
    assert equal(trained.modules.encoder.transformer, brain.modules.encoder.transformer)


def test_a_run_may_begin_from_one_of_another_normalisation(before, corpus, tmp_path):
    folder, trained = before["best_rq"]
    brain = begin("best_rq", corpus, tmp_path, begin_from=folder, normalize={"norm_type": "global"})
    assert equal(trained.modules.encoder.transformer, brain.modules.encoder.transformer)
    assert not brain.modules.encoder.normalize.count


def test_a_trained_quantiser_is_taken_with_its_codebooks(tmp_path):
    """Codebooks that follow the frames are buffers, perhaps of a part without parameters."""

    def quantiser(value):
        codebooks = torch.nn.Module()
        codebooks.register_buffer("embed", torch.full((2,), value))
        return torch.nn.ModuleDict({"proj": torch.nn.Linear(1, 1), "library": codebooks})

    trained, new = quantiser(1.0), quantiser(2.0)
    Checkpointer(tmp_path / "save", {"quantiser": trained}).save_checkpoint()
    load_weights(str(tmp_path), {"quantiser": new}, {})
    assert equal(trained, new)


def test_what_does_not_fit_is_new_and_named(before, corpus, tmp_path, caplog):
    folder, trained = before["best_rq"]
    brain = begin("best_rq", corpus, tmp_path, begin_from=folder, cb_vocab=16)
    assert equal(brain.modules["encoder"], trained.modules["encoder"])
    assert "head (w.weight: 32 x 16 there, 16 x 16 here)" in caplog.text
    assert re.search("That run had other keys: .*cb_vocab: 32 then, 16 now", caplog.text)


def test_the_same_command_goes_on_with_the_run_that_has_begun(before, corpus, tmp_path):
    source = str(shutil.copytree(before["best_rq"][0], tmp_path / "source"))
    options = {**OPTIONS, "begin_from": source}
    whole, trace = run("best_rq", corpus, tmp_path / "whole", **options)
    _, first = run("best_rq", corpus, tmp_path / "cut", interrupt="SIGTERM", at=2, **options)
    shutil.rmtree(source)  # which is not asked for again
    resumed, rest = run("best_rq", corpus, tmp_path / "cut", **options)
    assert first + rest == trace
    assert_equal_runs(state(resumed), state(whole))


def test_one_checkpoint_of_a_run_can_be_named(before, corpus, tmp_path, caplog):
    folder, trained = before["best_rq"]
    checkpoint = trained.checkpointer.find_checkpoint(min_key="valid_loss").path
    begin("best_rq", corpus, tmp_path, begin_from=str(checkpoint))
    assert f"Begins with weights of {checkpoint}" in caplog.text


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("begin_from", "nowhere", "begin_from: there is no folder nowhere"),
        ("begin_from", ".", "begin_from: .* has no whole checkpoint"),
        ("d_model", 32, "begin_from: the encoder .*d_model: 16 then, 32 now"),
    ],
)
def test_what_cannot_be_begun_from_is_one_line(before, corpus, tmp_path, key, value, message):
    options = {"begin_from": before["best_rq"][0], key: value}
    with pytest.raises(RunError, match=message):
        begin("best_rq", corpus, tmp_path, **options)


class Attack:
    """Ends the test where it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("it was run",)


@pytest.mark.parametrize("name", ["brain", "encoder"])
def test_a_file_that_holds_code_is_named_and_not_run(before, corpus, tmp_path, monkeypatch, name):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    shutil.copytree(before["best_rq"][0], tmp_path / "before")
    for checkpoint in (tmp_path / "before/save").iterdir():
        (checkpoint / f"{name}.ckpt").write_bytes(pickle.dumps(Attack()))
        (checkpoint / "SHA256SUMS").unlink()
        write_manifest(checkpoint)
    with pytest.raises(RunError, match=f"is damaged .{name}.ckpt: .* none of it was run"):
        begin("best_rq", corpus, tmp_path / "run", begin_from=str(tmp_path / "before"))


def test_another_kind_of_run_has_nothing_to_begin_from(before, corpus, tmp_path):
    with pytest.raises(RunError, match="begin_from: the encoder .* is another one"):
        begin("wav2vec2", corpus, tmp_path, begin_from=before["best_rq"][0])
