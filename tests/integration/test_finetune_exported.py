"""Fine-tuning that begins from an exported folder: somebody else's model, without its run."""

import shutil

import pytest
import torch
from tiny_ctc import FINETUNE, build_ctc, fit_ctc, manifests, options, write_hparams

import brainquant
from brainquant.models.speech_encoder import parts_without_parameters
from brainquant.publishing.export import export
from brainquant.recipe import load_encoder, load_run


@pytest.fixture(params=["best_rq", "wav2vec2"])
def pair(request, exported, pretrained_run):
    return exported(request.param), pretrained_run(request.param)


def two_clips():
    return torch.randn(2, 16000, generator=torch.manual_seed(0)), torch.tensor([16000, 9001])


def test_the_encoder_is_that_of_the_run(pair):
    encoder, expected = map(load_encoder, map(str, pair))
    assert encoder.training and encoder.is_pretrained and not encoder.lacks_weights
    hidden, frames, *_ = encoder.eval()(*two_clips())
    of_run, frames_of_run, *_ = expected.eval()(*two_clips())
    assert torch.equal(hidden, of_run) and torch.equal(frames, frames_of_run)
    trainable = [
        {n for n, p in e.named_parameters() if p.requires_grad} for e in (encoder, expected)
    ]
    assert trainable[0] == trainable[1]


def test_from_scratch_keeps_what_is_not_trained(pair):
    encoder, other = load_encoder(str(pair[0])), load_encoder(str(pair[0]), from_scratch=True)
    parts = parts_without_parameters(encoder)
    for name, part in parts.items():
        drawn = other.get_submodule(name).state_dict()
        assert all(torch.equal(drawn[key], t) for key, t in part.state_dict().items())
    weights = [torch.cat([p.flatten() for p in e.parameters()]) for e in (encoder, other)]
    assert not torch.equal(*weights)


@pytest.fixture
def finetune(exported, corpus, tmp_path):
    """Starts a fine-tuning on a copy of the exported folder with one command, again and again."""
    paths = manifests(corpus, tmp_path)
    model = shutil.copytree(exported("best_rq"), tmp_path / "model")

    def start(steps):
        more = {"optimizer_step_limit": steps, "warmup_steps": 1}
        brain, hparams = build_ctc(model, corpus, paths, tmp_path / "ctc", **more)
        overrides = options(model, corpus, paths, tmp_path / "ctc", **more)
        write_hparams(FINETUNE, tmp_path / "ctc", overrides)
        fit_ctc(brain, hparams)
        return brain

    start.model = model
    return start


def test_it_is_trained_goes_on_and_is_exported_again_without_the_folder(finetune, tmp_path):
    brain = finetune(1)
    before = load_encoder(str(finetune.model))
    assert any(
        not torch.equal(new, old)
        for new, old in zip(brain.raw("encoder").parameters(), before.parameters())
    )
    shutil.rmtree(finetune.model)
    opened, _ = load_run(tmp_path / "ctc")
    for name, tensor in brain.modules.state_dict().items():
        assert torch.equal(opened.modules.state_dict()[name], tensor), name
    assert finetune(2).optimizer_step == 2
    model = export(tmp_path / "ctc", tmp_path / "again")
    assert model.step == 2 and model.quantiser is None
    run = brainquant.load_pretrained(tmp_path / "ctc")
    assert run.fingerprint() == model.fingerprint()
    assert torch.equal(run(*two_clips()).hidden, model(*two_clips()).hidden)
