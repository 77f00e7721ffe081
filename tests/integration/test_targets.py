"""A run without a target ends with one line; a run without a validation is a run."""

import json

import pytest
from tiny_ctc import build_ctc, fit_ctc, manifests, pretrain
from tiny_run import build, fit, run, state

from brainquant.errors import RunError

SHORT = {"optimizer_step_limit": 1000, "log_interval": 2, "number_of_epochs": 1}


@pytest.mark.parametrize(
    "name, overrides, message",
    [
        ("best_rq", {"mask_length": 3}, "mask_length is 3 frames.*stack: 4.*set mask_length:"),
        ("best_rq", {"mask_length": 5000}, "mask_length is 5000 frames.*max_seconds is 12: set"),
        ("wav2vec2", {"mask_length": 5000}, "mask_length is 5000 frames.*max_seconds is 12: set"),
        ("wav2vec2", {"num_negatives": 0}, "num_negatives must be a whole number from 1 up, got 0"),
        ("wav2vec2", {"num_negatives": 2.5}, "num_negatives must be a whole number .*got 2.5"),
        (
            "best_rq",
            {"transformer": {"input_size": 7}},
            "front_end and transformer: the sizes do not fit",
        ),
        ("best_rq", {"compute_features": {"n_fft": 0}}, "^compute_features: "),
        (
            "wav2vec2",
            {"context_proj": {"in_features": 7}},
            "encoder and context_proj: the sizes do not",
        ),
        ("wav2vec2", {"logit_temp": 0}, "logit_temp must be a number above 0, got 0"),
    ],
)
def test_what_has_no_target_is_refused_before_the_first_step(
    corpus, tmp_path, name, overrides, message
):
    with pytest.raises(ValueError, match=message):
        build(name, corpus, tmp_path, **overrides)


def test_clips_that_hold_no_span_are_told_of_by_mask_length(corpus, tmp_path):
    # ToySpeech has no clip of 11 s.
    brain, hparams = build("best_rq", corpus, tmp_path, mask_length=1100)
    with pytest.raises(ValueError, match="none of its .* clips .*set mask_length: lower"):
        fit(brain, hparams)


@pytest.mark.parametrize("name", ["best_rq", pytest.param("wav2vec2", marks=pytest.mark.slow)])
def test_a_training_without_a_target_ends_with_its_keys(corpus, tmp_path, name):
    with pytest.raises(RunError, match="no target was seen in training .*mask_ratio:"):
        run(name, corpus, tmp_path, mask_ratio=1e-12, batch_seconds=30, **SHORT)


def test_a_log_interval_of_masks_without_a_target_ends_the_run(corpus, tmp_path):
    brain, hparams = build("best_rq", corpus, tmp_path, **SHORT)
    brain.hparams.mask_length = 3  # past the check of the YAML
    with pytest.raises(RunError, match="training up to step 2; .*mask_length: to a multiple"):
        fit(brain, hparams)


def test_a_validation_without_a_target_ends_the_run(corpus, tmp_path):
    silent = tmp_path / "valid.csv"
    rows = [(corpus / "valid.csv").read_text("utf-8").splitlines()[n].split(",") for n in (0, 1)]
    row = dict(zip(*rows))
    (tmp_path / "a.wav").write_bytes(b"no audio")
    silent.write_text(f"ID,duration,wav\na,{row['duration']},{tmp_path / 'a.wav'}\n")
    with pytest.raises(RunError, match="no target was seen in validation .*left_out.jsonl"):
        run(
            "best_rq",
            corpus,
            tmp_path,
            valid_csv=str(silent),
            max_bad_audio=1.0,
            batch_seconds=30,
            **SHORT,
        )


def test_a_run_without_validation_saves_resumes_and_reports(corpus, tmp_path):
    options = {**SHORT, "valid_csv": None, "evaluate": None, "batch_seconds": 30}
    two_epochs = {**options, "number_of_epochs": 2, "optimizer_step_limit": 1000}
    whole, _ = run("best_rq", corpus, tmp_path / "whole", **two_epochs)
    assert (tmp_path / "whole" / "report.png").exists()
    saved = whole.checkpointer.find_checkpoint()
    assert saved.meta["end-of-epoch"] and saved.meta["epoch"] == 2
    brain, hparams = build("best_rq", corpus, tmp_path / "run", **options)
    brain.run_log.draw_report = lambda *_: None
    fit(brain, hparams)
    resumed, hparams = build("best_rq", corpus, tmp_path / "run", **two_epochs)
    resumed.run_log.draw_report = lambda *_: None
    fit(resumed, hparams)
    log = state(resumed)["log"]
    assert {record["stage"] for record in log} == {"train"} and log == state(whole)["log"]


def test_a_fine_tuning_without_validation_saves_its_epochs(corpus, tmp_path):
    (tmp_path / "pretrained").mkdir()
    pretrained = pretrain("best_rq", corpus, tmp_path / "pretrained")
    paths = manifests(corpus, tmp_path)
    options = {**SHORT, "optimizer_step_limit": 2}
    brain, hparams = build_ctc(
        pretrained, corpus, paths, tmp_path / "run", valid_csv=None, **options
    )
    fit_ctc(brain, hparams)
    assert brain.checkpointer.find_checkpoint().meta["epoch"] == 1
    lines = (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["stage"] for line in lines} == {"train"}
