"""A corpus that is silent everywhere is named as that, before anything is fitted or trained."""

import csv

import numpy as np
import pytest
import soundfile
from tiny_run import build, fit

from brainquant.data.batches import make_loaders
from brainquant.errors import RunError
from brainquant.fitting import fit_kmeans

RATE = 16_000


def write_corpus(folder, levels):
    """Clips of two seconds: an offset and no sound, or, for level None, noise."""
    rows = []
    for number, level in enumerate(levels):
        samples = np.full(2 * RATE, level or 0.0)
        if level is None:
            samples = 0.1 * np.random.default_rng(number).standard_normal(2 * RATE)
        soundfile.write(folder / f"{number}.flac", samples, RATE)
        rows.append({"ID": f"clip{number}", "duration": 2.0, "wav": f"$data_root/{number}.flac"})
    for split in ("train", "valid"):
        with open(folder / f"{split}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def silence(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("silence"), [0.0, 0.0, 0.25, 0.0])


def check_message(error, silence):
    text = str(error.value)
    assert "all 4 clips that were read, of 4, are digital silence" in text
    assert str(silence / "2.flac") in text or str(silence / "1.flac") in text
    assert "set train_csv:" in text and "cb_dim" not in text


@pytest.mark.parametrize("whiten", [True, False])
def test_training_on_silence_ends_before_the_first_step(silence, tmp_path, whiten):
    brain, hparams = build("best_rq", silence, tmp_path, make_quantiser={"whiten": whiten})
    with pytest.raises(RunError) as error:
        fit(brain, hparams)
    check_message(error, silence)
    assert brain.optimizer_step == 0 and not brain.went_on


def test_wav2vec_on_silence_ends_before_the_first_step(silence, tmp_path):
    brain, hparams = build("wav2vec2", silence, tmp_path)
    with pytest.raises(RunError) as error:
        fit(brain, hparams)
    check_message(error, silence)


def test_k_means_of_silence_is_refused(silence, tmp_path):
    brain, hparams = build("best_rq", silence, tmp_path)
    loader, _ = make_loaders(hparams, min_samples=brain.min_samples)
    with pytest.raises(ValueError) as error:
        fit_kmeans(brain, loader, layer=0, clusters=4, num_frames=100)
    check_message(error, silence)


def test_one_clip_with_sound_is_enough(tmp_path):
    folder = write_corpus(tmp_path, [0.0, 0.0, None, 0.0])
    brain, hparams = build(
        "best_rq", folder, tmp_path / "run", optimizer_step_limit=1,
        make_quantiser={"whiten": False},
    )  # fmt: skip
    fit(brain, hparams)
    assert brain.optimizer_step == 1
