"""brainquant kmeans on a trained encoder and any corpus, and what its file says."""

import shutil

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

import brainquant
from brainquant.cli import main
from brainquant.extraction.corpus import find_source, read_corpus
from brainquant.extraction.kmeans import corpus_frames, fit_model
from brainquant.fitting import recipe_fingerprint
from brainquant.inference.kmeans_files import read_metadata
from brainquant.recipe import load_run

SIZES = {"layer": 2, "clusters": 5, "num_frames": 700}


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A folder with clips of several lengths and rates, as arrays by ID."""
    folder, generator = tmp_path_factory.mktemp("speech"), np.random.default_rng(0)
    clips = {"a": (16000, 2.0), "b": (8000, 1.1), "c": (16000, 3.3), "d": (16000, 0.7)}
    for name, (rate, seconds) in clips.items():
        soundfile.write(folder / f"{name}.wav", generator.normal(0, 0.1, int(rate * seconds)), rate)
    return folder


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("name", ["best_rq", "wav2vec2"])
def test_a_pass_has_the_frames_of_each_clip_alone(name, layer, pretrained_run, speech):
    encoder = brainquant.load_pretrained(pretrained_run(name))
    corpus = read_corpus(str(speech), find_source(str(speech)), 16000, encoder.min_samples)
    passes = corpus_frames(encoder, corpus, layer, str(speech), seed=0).batches
    rows = np.concatenate([x for _, x in passes(1)])
    alone = []
    for clip in ("a", "c", "d"):  # b is resampled
        wav, _ = soundfile.read(speech / f"{clip}.wav", dtype="float32")
        with torch.no_grad():
            (hidden,), frames = encoder(torch.from_numpy(wav)[None], layers=[layer])
        alone.append(hidden[0, : int(frames)].numpy())
    nearest = np.abs(np.concatenate(alone)[:, None] - rows).max(-1).min(1)
    assert nearest.max() < 1e-4
    assert len(np.concatenate(alone)) < len(rows) < 1.3 * len(np.concatenate(alone))


@pytest.mark.parametrize("layer", [0, 1])
def test_a_long_recording_has_the_frames_that_tokens_gives_units_to(
    layer, pretrained_run, tmp_path, caplog
):
    encoder, noise = brainquant.load_pretrained(pretrained_run("best_rq")), np.random.default_rng(0)
    waves = {"long": noise.normal(0, 0.1, 16000 * 90), "bad": np.full(16000 * 31, np.nan)}
    for name, wave in waves.items():
        soundfile.write(tmp_path / f"{name}.wav", wave, 16000, "FLOAT")
    corpus = read_corpus(str(tmp_path), find_source(str(tmp_path)), 16000, encoder.min_samples)
    ((ids, rows),) = corpus_frames(encoder, corpus, layer, "speech", seed=0).batches(1)
    (expected,) = encoder.encode_file(tmp_path / "long.wav", layers=[layer])
    assert [*ids] == ["long"] and np.array_equal(rows, expected.numpy())
    assert "'bad' left out: has samples that are NaN or infinite" in caplog.text


def test_the_seed_decides_and_nothing_else(pretrained_run, speech):
    run = str(pretrained_run("best_rq"))
    first, again, other = (fit_model(run, str(speech), seed=n, **SIZES)[0] for n in (1, 1, 2))
    assert first == again and first != other


def test_the_file_says_to_what_it_belongs(pretrained_run, speech, tmp_path):
    file = tmp_path / "k.safetensors"
    file.write_bytes(fit_model(str(pretrained_run("best_rq")), str(speech), **SIZES)[0])
    encoder = brainquant.load_pretrained(pretrained_run("best_rq"))
    assert read_metadata(file) == {
        "layer": "2", "frames": "700", "frame_rate": "25.0", "fingerprint": encoder.fingerprint(),
    }  # fmt: skip
    assert load_file(file)["centroids"].shape == (5, encoder.dim)
    assert encoder.add_kmeans(file) == 2
    with pytest.raises(ValueError, match="fitted to another model"):
        brainquant.load_pretrained(pretrained_run("wav2vec2")).add_kmeans(file)


def test_a_recipe_has_the_fingerprint_of_its_run(pretrained_run):
    folder = pretrained_run("best_rq")
    brain, _ = load_run(folder)
    assert recipe_fingerprint(brain) == brainquant.load_pretrained(folder).fingerprint()


def test_a_clip_that_cannot_be_read_is_left_out_with_its_reason(
    pretrained_run, speech, tmp_path, caplog
):
    shutil.copytree(speech, tmp_path / "speech")
    (tmp_path / "speech/e.wav").write_bytes(b"RIFF")
    flac = tmp_path / "speech/f.flac"
    soundfile.write(flac, np.random.default_rng(0).normal(0, 0.1, 32000), 16000)
    content = flac.read_bytes()  # damaged in the middle, after the header
    flac.write_bytes(content[:9000] + bytes(9000) + content[18000:])
    fit_model(str(pretrained_run("best_rq")), str(tmp_path / "speech"), **SIZES)
    assert "e.wav left out: " in caplog.text and "clip 'f' left out: " in caplog.text


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"clusters": 701}, "got --clusters 701, --frames 700"),
        ({"layer": 3}, "no layer 3; .* 1 to 2"),
        ({"layer": -1}, "no layer -1"),
        ({"clusters": 400}, r"speech\d* has \d+ frames, too few for 400 clusters"),
        ({"device": "gpu"}, "--device gpu: torch knows no such device"),
    ],
)
def test_what_cannot_be_fitted_is_named(changes, message, pretrained_run, speech):
    with pytest.raises(ValueError, match=message):
        fit_model(str(pretrained_run("best_rq")), str(speech), **{**SIZES, **changes})


@pytest.mark.parametrize(
    "line, expected",
    [
        ("m s --layer 2", (("m", "s"), {})),
        ("--layer 2 m s", (("m", "s"), {})),
        ("m --layer 2 s --seed 3", (("m", "s"), {"seed": 3})),
        ("m s --seed=3 --layer 2 --device cuda", (("m", "s"), {"seed": 3, "device": "cuda"})),
        ("m --seed 3 s --layer 2", (("m", "s"), {"seed": 3})),
        ("r.yaml --layer 2 --data_folder d", (["r.yaml", "--data_folder", "d"], None)),
        ("r.yaml --data_folder d --layer 2", (["r.yaml", "--data_folder", "d"], None)),
        ("--layer 2 r.yaml --seed 3 --debug", (["r.yaml", "--seed", "3", "--debug"], None)),
    ],
)
def test_both_forms_take_options_before_and_after(line, expected, tmp_path, monkeypatch):
    seen = []

    def fit(*arguments, **options):
        seen.append((arguments, options))
        return b"centroids", "fitted"

    monkeypatch.setattr("brainquant.extraction.kmeans.fit_model", fit)
    monkeypatch.setattr("brainquant.cli.kmeans.fit_recipe", fit)
    main(["kmeans", "--output", str(tmp_path / "k"), *line.split()])
    main(["kmeans", *line.split(), "--output", str(tmp_path / "k")])
    arguments, more = expected
    options = {"layer": 2, "clusters": 500, "num_frames": 500_000}
    if more is not None:
        assert seen == 2 * [(arguments, {**options, "seed": 0, "device": "cpu", **more})]
    else:
        assert seen == 2 * [((arguments,), options)]
    assert (tmp_path / "k").read_bytes() == b"centroids"


@pytest.mark.parametrize("line", ["m", "m s t", "m s --data_folder d"])
def test_a_model_needs_one_source_and_has_no_keys(line, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["kmeans", *line.split(), "--output", str(tmp_path / "k")])
    assert "usage: brainquant kmeans MODEL SOURCE --output FILE" in capsys.readouterr().err
