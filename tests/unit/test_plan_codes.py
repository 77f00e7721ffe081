"""What a plan says of the codes before training, for every quantiser."""

import re
import shutil

import numpy as np
import pytest
import soundfile
import torch
from fragments import OF_INPUTS
from hyperpyyaml import load_hyperpyyaml
from tiny_ctc import build_ctc, manifests
from tiny_huggingface import save_model
from tiny_run import build

from brainquant.planning.code_facts import Encoded, codes_in_bf16, facts_of
from brainquant.planning.codes import describe_codes
from brainquant.quantisers import RandomProjectionQuantizer, make_quantiser
from brainquant.recipe import build_loaders

FRAGMENTS = sorted(OF_INPUTS[0].parent.glob("*.yaml"))
SMALLER = {"kmeans": "{clusters: 20}", "random_projection": "{cb_vocab: 512}"}


def quantiser_of(fragment, folder, arguments):
    """The quantiser of a fragment, for the features of the recipe best_rq."""
    shutil.copy(fragment, folder)
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"make: !include:{fragment.name} {arguments}", "utf-8")
    with open(recipe, encoding="utf-8") as file:
        return make_quantiser(load_hyperpyyaml(file)["make"], input_dim=320)


def arguments_of(fragment, folder, loader, exported):
    """What a fragment leaves open."""
    if fragment.stem == "teacher":
        return f"{{teacher: {exported('best_rq')}, layer: 1, clusters: 4}}"
    if fragment.stem == "labels":
        labels = {name: np.arange(500) % 5 for name in loader.dataset.data_ids}
        np.savez(folder / "labels.npz", **labels)
        return f"{{labels: {folder / 'labels.npz'}, codebook_size: 6, frame_rate: 25.0}}"
    return SMALLER.get(fragment.stem, "{}")


@pytest.fixture(scope="module")
def recipe(corpus, tmp_path_factory):
    """The Brain of best_rq, its hyperparameters and its loader."""
    brain, hparams = build("best_rq", corpus, tmp_path_factory.mktemp("run"))
    return brain, hparams, build_loaders(brain, hparams)[0]


def described(recipe, quantiser, seconds=0.1):
    brain, hparams, loader = recipe
    brain.modules["quantiser"] = quantiser
    return describe_codes(brain, hparams, loader, seconds=seconds)


def names(section):
    return [finding.name for finding in section.findings]


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda path: path.stem)
def test_every_quantiser_is_described_and_left_as_it_was(fragment, recipe, exported, tmp_path):
    quantiser = quantiser_of(
        fragment, tmp_path, arguments_of(fragment, tmp_path, recipe[2], exported)
    )
    before = {name: value.clone() for name, value in quantiser.state_dict().items()}
    section = described(recipe, quantiser)
    assert all(torch.equal(v, before[n]) for n, v in quantiser.state_dict().items())
    facts = section.facts
    assert facts["codebooks"] == quantiser.num_codebooks
    assert len(facts["code_perplexity"]) == quantiser.num_codebooks
    assert 1 <= max(facts["code_perplexity"]) <= facts["perplexity_cap"]
    assert 0 < facts["commonest_code"] <= 1 and facts["frames"] > 50
    assert bool(facts["fit_frames"]) == bool(quantiser.frames_to_fit)
    assert max(map(len, section.lines)) <= 76
    if fragment.stem == "labels":
        assert facts["code_perplexity"] == [pytest.approx(5, rel=0.01)]
        assert facts["flipped_by_bf16"] is None and "read from files" in section.lines[-1]
        return
    assert 1 <= facts["effective_dimension"] <= facts["input_dim"]
    assert 0 <= facts["flipped_by_bf16"] < 0.05
    # Its codes are all 0 before the first step; the fragment says so.
    assert ("codes_collapsed" in names(section)) == (fragment.stem == "residual")


def test_a_random_projection_of_loudness_is_named_and_whitening_mends_it(recipe):
    brain, *_ = recipe
    offset = 40.0  # of log-mel features that nothing normalises
    normalize = brain.raw("encoder").normalize
    brain.raw("encoder").normalize = Offset(offset)
    try:
        section = described(recipe, RandomProjectionQuantizer(320, 16, 512, seed=0))
        assert "codes_collapsed" in names(section) or "few_codes" in names(section)
        assert "whiten: True" in section.findings[0].remedy
        whitened = RandomProjectionQuantizer(320, 8, 512, seed=0, whiten=True)
        section = described(recipe, whitened)
        assert not names(section)
        assert section.facts["effective_projected_dimension"] == pytest.approx(8, abs=1)
    finally:
        brain.raw("encoder").normalize = normalize


class Offset(torch.nn.Module):
    def __init__(self, offset):
        super().__init__()
        self.offset = offset

    def forward(self, x, lengths):
        return x + self.offset


def encoded(inputs_NI, quantiser, power_N=None):
    power_N = torch.ones(len(inputs_NI)) if power_N is None else power_N
    return Encoded(inputs_NI, quantiser.encode(inputs_NI[None])[0], power_N, 3, 9.0)


def test_bf16_flips_codes_and_float32_does_not():
    quantiser = RandomProjectionQuantizer(64, 16, 4096, seed=0)
    x_NI = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0)) + 1.0
    share = facts_of(quantiser, encoded(x_NI, quantiser))["flipped_by_bf16"]
    assert 0.001 < share < 0.03  # 0.7 % on speech
    exact_NI = torch.eye(64)
    quantiser.P.copy_(quantiser.P.bfloat16())
    assert torch.equal(codes_in_bf16(quantiser, exact_NI), quantiser.encode(exact_NI[None])[0])


def test_a_code_of_silence_is_told_from_a_frequent_one(corpus, tmp_path):
    brain, hparams = build("best_rq", corpus, tmp_path / "run")
    loader, _ = build_loaders(brain, hparams)
    for number, name in enumerate(loader.dataset.data_ids):  # three quarters are digital silence
        audio, rate = soundfile.read(loader.dataset.data[name]["wav"])
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.concatenate([audio, np.zeros(3 * len(audio))]), rate)
        clip = loader.dataset.data[name]
        clip["wav"], clip["duration"] = str(path), 4 * len(audio) / rate
    section = describe_codes(brain, hparams, loader, seconds=0.2)
    [finding] = [f for f in section.findings if f.name == "frequent_code"]
    # How many clips are read in the time depends on the machine.
    text = r"one code has (\d+)% of the frames, which are silence \(-100 dB\)"
    assert 40 <= int(re.fullmatch(text, finding.text)[1]) <= 80


@pytest.mark.parametrize("name", ["wav2vec2", "online_codebooks"])
def test_codes_that_are_learned_are_said_in_one_line(name, corpus, tmp_path):
    brain, hparams = build(name, corpus, tmp_path)
    section = describe_codes(brain, hparams, build_loaders(brain, hparams)[0], seconds=1)
    [line] = section.lines
    assert line.startswith("none yet: ") and len(line) <= 76 and not section.findings


def test_fine_tunings_and_continued_models(corpus, pretrained_run, tmp_path):
    paths = manifests(corpus, tmp_path)
    brain, hparams = build_ctc(pretrained_run("best_rq"), corpus, paths, tmp_path / "ctc")
    section = describe_codes(brain, hparams, build_loaders(brain, hparams)[0], seconds=1)
    assert section.lines == ["none: this recipe trains on transcripts"]
    save_model(tmp_path / "hubert", "HubertModel")
    brain, hparams = build(
        "continue_masked", corpus, tmp_path / "a", model=str(tmp_path / "hubert")
    )
    section = describe_codes(brain, hparams, build_loaders(brain, hparams)[0], seconds=0.2)
    assert section.facts["codebook_size"] == 32 and section.facts["effective_dimension"] > 1


def test_audio_that_cannot_be_read_and_too_little_of_it_are_said(corpus, tmp_path):
    brain, hparams = build("best_rq", corpus, tmp_path, make_quantiser={"cb_dim": 300})
    loader, _ = build_loaders(brain, hparams)
    section = describe_codes(brain, hparams, loader, seconds=0.0)
    assert "the quantiser cannot be fitted" in section.lines[0] and "cb_dim" in section.lines[0]
    for clip in loader.dataset.data.values():
        clip["wav"] = str(tmp_path / "gone.wav")
    for quantiser, expected in (
        (brain.quantiser, "none of the clips can be read"),
        (RandomProjectionQuantizer(320, 8, 32, seed=0), "no clip of train_csv could be read"),
    ):
        brain.modules["quantiser"] = quantiser
        section = describe_codes(brain, hparams, loader, seconds=1)
        assert expected in section.lines[0] and section.facts["codes"] is None
