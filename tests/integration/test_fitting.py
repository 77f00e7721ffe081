"""Fitting to a recipe's audio: the commands as a user runs them, and what they compute."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.cluster import KMeans
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch

from brainquant import fitting
from brainquant.recipe import open_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes/ToySpeech/hparams"
TINY = "--num_layers 2 --d_model 32 --batch_seconds 8 --num_buckets 4 --prepare null".split()


@pytest.fixture
def recipe(corpus, tmp_path):
    """The arguments of a recipe with a tiny model, in a folder of the test."""

    def arguments(name, *more):
        folders = ["--data_folder", str(corpus), "--output_folder", str(tmp_path / "run")]
        quiet = ["--train_loggers", "[]", "--noprogressbar"]
        return [str(RECIPES / f"{name}.yaml"), *folders, *TINY, *quiet, *map(str, more)]

    return arguments


@pytest.fixture
def brainquant(recipe, tmp_path):
    """Runs a command on the BEST-RQ recipe, in a process of its own."""

    def run(command, *arguments, check=True):
        program = Path(sys.executable).with_name("brainquant")
        done = subprocess.run(
            [program, command, *recipe("best_rq", "--cb_vocab", 64), *map(str, arguments)],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if check:
            assert done.returncode == 0, done.stderr[-3000:]
        return done

    return run


def frames_of(brain, batch, layer):
    """The frames of a batch of a recipe."""
    encoder = brain.raw("encoder").eval()
    return fitting.valid_frames(encoder, *brain.waveforms(batch), layer)


def all_frames(brain, loader, layer=0):
    """The training frames in memory."""
    return np.concatenate([frames_of(brain, batch, layer) for batch in loader])


def noise(*lengths):
    generator = torch.Generator().manual_seed(0)
    return [{"sig": torch.randn(n, generator=generator)} for n in lengths]


@pytest.mark.slow  # the README's line of brainquant kmeans runs in the same way
def test_a_training_uses_the_centroids_of_the_command(
    brainquant, run_recipe, read_metrics, tmp_path
):
    file = "results/kmeans.safetensors"
    done = brainquant("kmeans", "--clusters", 24, "--frames", 3000, "--output", file)
    line = done.stdout.splitlines()[-1]
    for part in ("3000 frames, 24 clusters, inertia ", " per frame, perplexity ", file):
        assert part in line
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["kmeans.safetensors"]
    assert load_file(tmp_path / file)["centroids"].shape == (24, 320)

    fragment = (
        f"!include:../../../hparams/quantisers/kmeans.yaml {{clusters: null, centroids: {file}}}"
    )
    run_recipe("best_rq", "--debug", "--make_quantiser", fragment)
    record = read_metrics("run/debug")[-1]
    assert record["perplexity_cap"] == 24 and record["code_perplexity"][0] > 8


@pytest.mark.slow
def test_a_deeper_layer_needs_the_checkpoint_of_a_run(brainquant, run_recipe, tmp_path):
    arguments = ["--layer", 2, "--clusters", 8, "--frames", 1000, "--output", "k.safetensors"]
    done = brainquant("kmeans", *arguments, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "no checkpoint in" in done.stderr and "train the recipe first" in done.stderr
    assert not (tmp_path / "k.safetensors").exists()

    run_recipe("best_rq", "--optimizer_step_limit", 3)
    brainquant("kmeans", *arguments)
    assert load_file(tmp_path / "k.safetensors")["centroids"].shape == (8, 32)

    done = brainquant("kmeans", *arguments, "--layer", 3, check=False)
    assert "error: there is no layer 3;" in done.stderr and "1 to 2" in done.stderr
    done = brainquant("kmeans", *arguments, "--make_quantiser", "{cb_dim: 9}", check=False)
    assert "error: the checkpoint" in done.stderr and "is not of this YAML" in done.stderr


def test_streamed_centroids_are_about_as_good_as_those_of_all_frames(recipe):
    brain, loader = open_recipe(recipe("best_rq"))
    tensors, summary = fitting.fit_kmeans(brain, loader, layer=0, clusters=16, num_frames=6000)
    x = torch.from_numpy(all_frames(brain, loader))
    best = KMeans(16, n_init=3, random_state=0).fit(x.numpy()).inertia_ / len(x)
    ours = torch.cdist(x, tensors["centroids"]).square().amin(1).mean().item()
    assert best * 0.99 < ours < best * 1.1
    reported = float(summary.split("inertia ")[1].split()[0])
    assert reported == pytest.approx(ours, rel=0.03)


def test_the_seed_decides(recipe):
    def centroids(seed):
        brain, loader = open_recipe(recipe("best_rq", "--seed", seed))
        return fitting.fit_kmeans(brain, loader, layer=0, clusters=8, num_frames=1000)[0]

    first, again, other = (centroids(seed)["centroids"] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_memory_does_not_grow_with_the_frames(recipe):
    brain, loader = open_recipe(recipe("best_rq"))
    peaks = []
    for passes in (1, 1, 6):  # the first one warms up
        tracemalloc.start()
        fitting.fit_kmeans(brain, loader, layer=0, clusters=8, num_frames=1500 * passes)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    more_frames = 5 * 1500 * 320 * 4  # bytes
    assert peaks[2] - peaks[1] < more_frames / 10


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("name", ["best_rq", "wav2vec2"])
def test_frames_are_those_of_each_clip_alone(recipe, name, layer):
    brain, _ = open_recipe(recipe(name))
    clips = noise(40000, 24000, 31234)
    together = frames_of(brain, PaddedBatch(clips), layer)
    alone = [frames_of(brain, PaddedBatch([clip]), layer) for clip in clips]
    differences = np.abs(together - np.concatenate(alone))
    # SpeechBrain's Conformer lets the padding into its convolutions.
    assert differences.mean() < (1e-5 if layer == 0 else 0.1)
    assert differences[: len(alone[0])].max() < 1e-3


@pytest.mark.parametrize("name", ["best_rq", "wav2vec2"])
def test_layer_0_is_what_the_quantiser_sees_in_training(recipe, name):
    brain, _ = open_recipe(recipe(name))
    brain.modules.eval()
    batch, seen = PaddedBatch(noise(40000, 24000)), []

    def spied(call):
        return lambda x, *args, **kwargs: seen.append(x) or call(x, *args, **kwargs)

    for method in ("encode", "forward"):  # a Brain calls one of them
        setattr(brain.quantiser, method, spied(getattr(brain.quantiser, method)))
    brain.step = 1
    brain.compute_forward(batch, Stage.VALID)
    inputs, _ = brain.modules.encoder.quantiser_inputs(*brain.waveforms(batch))
    rows = {tuple(row) for row in inputs.flatten(0, 1).tolist()}
    assert seen and {tuple(row) for row in seen[0].flatten(0, 1).tolist()} <= rows


def test_deeper_layers_have_the_weights_of_the_run(recipe):
    batch = PaddedBatch(noise(40000))
    trained, _ = open_recipe(recipe("best_rq", "--seed", 5))
    trained.checkpointer.save_checkpoint()
    brain, _ = open_recipe(recipe("best_rq", "--seed", 6))
    expected, before = (frames_of(b, batch, 2) for b in (trained, brain))
    fitting.load_weights(brain, 2)
    after = frames_of(brain, batch, 2)
    assert np.array_equal(after, expected) and not np.array_equal(before, expected)


def test_an_extractor_that_was_not_trained_is_refused_and_plain_features_are_not(recipe):
    fitting.load_weights(open_recipe(recipe("best_rq"))[0], 0)
    brain, _ = open_recipe(recipe("wav2vec2"))
    with pytest.raises(ValueError, match="layer 0 has weights .* no checkpoint"):
        fitting.load_weights(brain, 0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"clusters": 0, "num_frames": 10}, "got --clusters 0, --frames 10"),
        ({"clusters": 11, "num_frames": 10}, "got --clusters 11, --frames 10"),
        ({"clusters": 9000, "num_frames": 9999}, r"has 1\d{3} frames, too few for 9000"),
        ({"clusters": 2, "num_frames": 10, "layer": -1}, "no layer -1.*1 to 2"),
    ],
)
def test_what_cannot_be_fitted_is_named(recipe, arguments, message):
    brain, loader = open_recipe(recipe("best_rq"))
    with pytest.raises(ValueError, match=message):
        fitting.fit_kmeans(brain, loader, **{"layer": 0, **arguments})


def test_broken_audio_is_named(recipe, monkeypatch):
    brain, loader = open_recipe(recipe("best_rq"))
    encoder = brain.modules["encoder"]
    inputs = encoder.quantiser_inputs
    monkeypatch.setattr(
        encoder, "quantiser_inputs", lambda *a: (inputs(*a)[0] * float("nan"), inputs(*a)[1])
    )
    with pytest.raises(ValueError, match="layer 0 is not finite for one of .*train_csv"):
        fitting.fit_kmeans(brain, loader, layer=0, clusters=2, num_frames=100)


def test_a_clip_that_cannot_be_read_is_left_out_with_its_id(recipe, caplog):
    brain, loader = open_recipe(recipe("best_rq", "--batch_clips", 1))
    clip = loader.dataset.data_ids[0]
    whole = all_frames(brain, loader)
    only = brain.waveforms(PaddedBatch([loader.dataset[0]]))
    frames = brain.modules["encoder"].quantiser_inputs(*only)[1].item()
    loader.dataset.data[clip]["wav"] = __file__
    wanted = len(whole) - frames  # of one pass
    frames = fitting.recipe_frames(brain, loader, 0)
    streamed = fitting.stream_frames(frames, wanted, at_least=wanted)
    assert sum(map(len, streamed)) == wanted
    assert f"clip {clip!r} left out: " in caplog.text
