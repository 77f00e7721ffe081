"""What a plan says of one step: speech, parameters, arithmetic and masks."""

import re

import pytest
import torch
import yaml
from tiny_ctc import build_ctc, manifests
from tiny_huggingface import save_model
from tiny_run import MODELS, build
from torch.utils.flop_counter import FlopCounterMode

from brainquant.planning.flop import OTHER_OPERATORS
from brainquant.planning.step import describe_step
from brainquant.recipe import build_loaders


def described(name, corpus, folder, **overrides):
    brain, hparams = build(name, corpus, folder, **overrides)
    return brain, describe_step(brain, hparams, build_loaders(brain, hparams)[0])


def found(section):
    return [finding.name for finding in section.findings]


def test_a_step_has_the_speech_of_its_batches(corpus, tmp_path):
    brain, hparams = build("best_rq", corpus, tmp_path, grad_accumulation_factor=3, max_seconds=9)
    loader, _ = build_loaders(brain, hparams)
    facts = describe_step(brain, hparams, loader).facts
    held = [sum(loader.dataset.data[loader.dataset.data_ids[n]]["duration"] for n in batch)
            for batch in loader.batch_sampler]  # fmt: skip
    assert facts["step_seconds"] == pytest.approx(3 * sum(held) / len(held))
    assert facts["step_seconds_at_most"] == 24 and facts["accumulation"] == 3
    assert facts["steps_per_epoch"] == -(-len(held) // 3)


@pytest.mark.parametrize("name", [n for n in MODELS if not n.startswith("continue")])
def test_every_recipe_is_described_and_left_as_it_was(name, corpus, tmp_path):
    brain, hparams = build(name, corpus, tmp_path, mask_length=12)
    before = {name: value.clone() for name, value in brain.modules.state_dict().items()}
    drawn, modes = torch.get_rng_state(), [m.training for m in brain.modules.modules()]
    section = describe_step(brain, hparams, build_loaders(brain, hparams)[0])
    assert all(torch.equal(value, before[n]) for n, value in brain.modules.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [m.training for m in brain.modules.modules()] == modes
    assert all(p.grad is None for p in brain.modules.parameters())
    assert not brain.tally.validation.values
    facts = section.facts
    # Each parameter of a layer is used in one multiplication and one addition for each frame, and
    # in twice as many for its gradients.
    layers = brain.raw("encoder").layers
    parameters = sum(p.numel() for layer in layers for p in layer.parameters())
    frames = brain.hparams.sample_rate / brain.raw("encoder").stride
    assert 4 * parameters * frames < facts["flop_per_second_of_speech"] < 1e9
    assert facts["parameters"] >= facts["encoder_parameters"] > parameters
    assert [s["seconds"] for s in facts["masked"]] == [1, 3, 10, 20]
    assert facts["masked"][3]["left_out"] == "above max_seconds 12"
    for share in facts["masked"][:3]:
        assert share["targets"] == pytest.approx(hparams["mask_ratio"], abs=0.06)
        assert share["frames"] == pytest.approx(hparams["mask_ratio"], abs=0.06)
    assert max(map(len, section.lines)) <= 80 and section.title == "One step"


def test_arithmetic_is_in_proportion_to_the_layers(corpus, tmp_path):
    flop = [
        described("best_rq", corpus, tmp_path, num_layers=n)[1].facts["flop_per_second_of_speech"]
        for n in (1, 2, 3)
    ]
    assert flop[2] - flop[1] == pytest.approx(flop[1] - flop[0])


@pytest.mark.parametrize("make, forward", [
    (lambda: torch.nn.Conv1d(8, 8, 3, groups=8, padding=1), 2 * 2 * 8 * 10 * 3),
    (lambda: torch.nn.Conv1d(8, 4, 3, padding=1), 2 * 2 * 4 * 10 * 8 * 3),
    (lambda: torch.nn.ConvTranspose1d(8, 4, 2, stride=2), 2 * 2 * 10 * 8 * 4 * 2),
])  # fmt: skip
def test_convolutions_are_counted_whatever_their_groups(make, forward):
    x = torch.randn(2, 8, 10, requires_grad=True)
    with FlopCounterMode(display=False, custom_mapping=OTHER_OPERATORS) as counter:
        make()(x).sum().backward()
    assert counter.get_total_flops() == 3 * forward


def test_a_product_in_place_is_counted():
    with FlopCounterMode(display=False, custom_mapping=OTHER_OPERATORS) as counter:
        torch.zeros(16, 6).addmm_(torch.ones(16, 10), torch.ones(10, 6))
        torch.zeros(2, 4, 3).baddbmm_(torch.ones(2, 4, 5), torch.ones(2, 5, 3), alpha=2)
    assert counter.get_total_flops() == 2 * 16 * 10 * 6 + 2 * 2 * 4 * 5 * 3


def test_masks_that_miss_the_ratio_are_named(corpus, tmp_path):
    _, section = described("best_rq", corpus, tmp_path / "a", mask_length=10, min_seconds=2)
    assert section.facts["masked"][0] == {"seconds": 1, "left_out": "below 2 s"}
    assert (
        section.facts["masked"][1]["targets"] < 0.43 < 0.47 < section.facts["masked"][1]["frames"]
    )
    assert "spans_cut_targets" in found(section)
    assert "set mask_length: 8" in [f.remedy for f in section.findings]
    # 0.11 spans of 96 frames in 2 s: most clips of a second would be without, 3 s are the shortest
    _, section = described("best_rq", corpus, tmp_path / "b", mask_length=96, mask_ratio=0.1)
    assert "clips_without_targets" in found(section)
    _, section = described("wav2vec2", corpus, tmp_path / "c", mask_length=45, mask_ratio=0.6)
    assert section.facts["masked"][0]["targets"] == pytest.approx(0.55, abs=0.05)


def test_clips_instead_of_seconds_and_batches_that_are_not_full(corpus, tmp_path):
    _, section = described("best_rq", corpus, tmp_path / "a", batch_clips=2)
    assert section.facts["step_seconds_at_most"] is None
    assert section.lines[0].startswith("speech      up to 2 clips, ")
    for changes in ({"batch_seconds": 20, "num_buckets": 50}, {"batch_seconds": 500}):
        section = described("best_rq", corpus, tmp_path / "b", **changes)[1]
        [remedy] = [f.remedy for f in section.findings if f.name == "batches_not_full"]
        keys, told = remedy.removeprefix("set ").split(": a step then sees ")
        better = dict(re.findall(r"(\w+): ([\d.]+)", keys))
        changed = {**changes, **{key: yaml.safe_load(value) for key, value in better.items()}}
        _, section = described("best_rq", corpus, tmp_path / "c", **changed)
        assert section.facts["step_seconds"] == pytest.approx(float(told[:-2]), rel=0.01)
        assert "batches_not_full" not in found(section)


def test_continued_models_and_fine_tunings_have_steps_too(corpus, pretrained_run, tmp_path):
    save_model(tmp_path / "hubert", "HubertModel")
    overrides = {"model": str(tmp_path / "hubert")}
    _, section = described("continue_masked", corpus, tmp_path / "run", **overrides)
    assert section.facts["flop"] > 0 and len(section.facts["masked"]) == 4
    pretrained = pretrained_run("best_rq")
    paths = manifests(corpus, tmp_path)
    brain, hparams = build_ctc(pretrained, corpus, paths, tmp_path / "ctc")
    section = describe_step(brain, hparams, build_loaders(brain, hparams)[0])
    assert section.facts["flop"] > 0 and "masked" not in section.facts


def test_audio_that_cannot_be_read_is_said(corpus, tmp_path, monkeypatch):
    brain, hparams = build("best_rq", corpus, tmp_path)
    loader, _ = build_loaders(brain, hparams)
    for clip in loader.dataset.data.values():
        clip["wav"] = str(tmp_path / "gone.wav")
    section = describe_step(brain, hparams, loader)
    assert "FLOP        not counted: no clip could be read" in section.lines
