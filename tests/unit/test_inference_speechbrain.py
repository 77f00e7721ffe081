"""SpeechBrain's own classes hold an exported encoder: WaveformEncoder and the place of Wav2Vec2."""

import copy
import os

import hypothesis
import numpy as np
import pytest
import soundfile
import torch
from speechbrain.inference import WaveformEncoder
from speechbrain.utils.fetching import LocalStrategy

import brainquant
from brainquant.inference.speechbrain import (
    ExportedEncoder,
    FolderPretrainer,
    SSLEncoder,
    count_samples,
)
from brainquant.models import InputNormalization

RECIPES = ["best_rq", "wav2vec2"]


@pytest.fixture(params=RECIPES)
def folder(request, exported):
    return exported(request.param)


@pytest.fixture
def model(folder):
    return brainquant.load_pretrained(folder)


def clips():
    """Waveforms with noise in their padding, and SpeechBrain's relative lengths."""
    samples = torch.tensor([16000, 15999, 7001, 700])
    return torch.randn(4, 16000, generator=torch.manual_seed(0)), samples, samples / 16000


@torch.no_grad()
def assert_equal(encoder, model):
    wavs, samples, shares = clips()
    encoded, expected = encoder.encode_batch(wavs, shares), model(wavs, samples)
    assert torch.equal(encoded["embeddings"], expected.hidden)
    assert torch.equal(encoded["frames"], expected.frames_B)


def test_a_batch_gives_what_load_pretrained_gives_and_what_each_clip_gives_alone(folder, model):
    encoder = WaveformEncoder.from_hparams(source=str(folder))
    assert_equal(encoder, model)
    wavs, samples, shares = clips()
    encoded = encoder.encode_batch(wavs, shares)
    assert not encoded["embeddings"].requires_grad
    for row, (length, frames) in enumerate(zip(samples, encoded["frames"])):
        alone = encoder.encode_batch(wavs[row : row + 1, :length], torch.ones(1))["embeddings"]
        torch.testing.assert_close(
            encoded["embeddings"][row, :frames], alone[0, :frames], rtol=0, atol=1e-5
        )


def test_a_file_of_another_rate_with_two_channels_is_encoded(folder, model, tmp_path):
    times = np.arange(8000) / 8000
    tone = np.sin(2 * np.pi * 440 * times) * [[0.5], [0.1]]
    soundfile.write(tmp_path / "tone.wav", tone.T, 8000)
    encoder = WaveformEncoder.from_hparams(source=str(folder))
    embeddings = encoder.encode_file(str(tmp_path / "tone.wav"))
    assert embeddings.shape == (1, model.count_frames(16000), model.dim)
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    soundfile.write(tmp_path / "whole.wav", tone, 16000, subtype="FLOAT")
    wav = torch.from_numpy(soundfile.read(tmp_path / "whole.wav", dtype="float32")[0])[None]
    whole = encoder.encode_file(str(tmp_path / "whole.wav"))
    with torch.no_grad():
        assert torch.equal(whole, model(wav).hidden)
    similarity = torch.cosine_similarity(embeddings, whole, dim=-1)
    assert similarity[0, 2:-2].min() > 0.95  # the ends of a resampled file differ


@pytest.mark.parametrize("strategy", [None, LocalStrategy.SYMLINK, LocalStrategy.COPY])
def test_it_opens_from_another_folder_through_links_and_copies(
    exported, strategy, tmp_path, monkeypatch
):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "linked").symlink_to(exported("best_rq"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    options = {"savedir": "saved", "local_strategy": strategy} if strategy else {}
    before = sorted(os.listdir(exported("best_rq")))
    encoder = WaveformEncoder.from_hparams(source="../models/linked", **options)
    assert_equal(encoder, brainquant.load_pretrained(exported("best_rq")))
    assert os.listdir() == (["saved"] if strategy else [])
    assert sorted(os.listdir(exported("best_rq"))) == before


def test_the_folder_opens_without_network_and_without_code_of_training(exported, start_program):
    program = """
import socket, sys

class Refuse:
    def find_spec(self, name, *rest):
        assert not name.startswith(("brainquant.training", "brainquant.brains")), name

def refuse(*arguments):
    raise AssertionError("network")

sys.meta_path.insert(0, Refuse())
socket.socket.connect = socket.getaddrinfo = refuse
import torch
from speechbrain.inference import WaveformEncoder
for folder in sys.argv[1:]:
    encoded = WaveformEncoder.from_hparams(folder).encode_batch(torch.ones(1, 16000), torch.ones(1))
    print(encoded["embeddings"].double().sum().item())
"""
    folders = [exported(name) for name in RECIPES]
    process = start_program("-c", program, *folders)
    shown, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-2000:]
    with torch.no_grad():
        sums = [
            brainquant.load_pretrained(folder)(torch.ones(1, 16000)).hidden.double().sum().item()
            for folder in folders
        ]
    assert [float(line) for line in shown.splitlines()] == pytest.approx(sums, abs=1e-4)


@hypothesis.given(hypothesis.strategies.data())
def test_lengths_of_speechbrain_are_exact_up_to_eight_minutes(data):
    longest = data.draw(hypothesis.strategies.integers(1, 8 * 60 * 16000))
    length = data.draw(hypothesis.strategies.integers(0, longest))
    wavs = torch.empty(1, 1).expand(1, longest)
    assert count_samples(wavs, torch.tensor([length / longest])).tolist() == [length]
    assert count_samples(wavs, None) is None


def test_an_encoder_without_its_folder_is_one_clear_error(exported, tmp_path):
    with pytest.raises(ValueError, match="has no weights yet; open its folder with"):
        ExportedEncoder()(torch.zeros(1, 16000))
    with pytest.raises(ValueError, match="there are no files yet; call collect_files first"):
        FolderPretrainer(loadables={"encoder": ExportedEncoder()}).load_collected()
    with pytest.raises(ValueError, match="must be an exported folder or a Hub id, got None"):
        FolderPretrainer().collect_files()
    text = (exported("best_rq") / "hyperparams.yaml").read_text("utf-8")
    (tmp_path / "hyperparams.yaml").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=r"config\.json"):
        WaveformEncoder.from_hparams(source=str(tmp_path))


def test_in_a_recipe_it_is_trained_or_stays_as_it_is(folder, model):
    wavs, samples, shares = clips()
    frozen = SSLEncoder(str(folder), freeze=True)
    frozen.train()  # as Brain.fit does
    with torch.no_grad():
        expected = model(wavs, samples).hidden
        assert torch.equal(frozen(wavs, shares), expected) and frozen.dim == model.dim
        assert torch.equal(frozen(wavs), model(wavs).hidden)
    assert not frozen(wavs, shares).requires_grad

    trained = SSLEncoder(str(folder))
    assert trained.training and trained.model.quantiser is None
    train(trained, wavs, shares)


def test_from_hparams_gives_an_encoder_that_can_be_trained(folder):
    wavs, _, shares = clips()
    opened = WaveformEncoder.from_hparams(source=str(folder), freeze_params=False)
    train(opened.mods.encoder, wavs, shares)


def train(encoder, wavs, shares):
    """Makes gradients of all that is trained; statistics of a normalisation stay."""
    encoder.train()
    normalisation = [m for m in encoder.modules() if isinstance(m, InputNormalization)]
    statistics = copy.deepcopy([m.state_dict() for m in normalisation])
    output = encoder(wavs, shares)
    hidden = output if isinstance(output, torch.Tensor) else output["embeddings"]
    hidden.square().mean().backward()
    parameters = [p for p in encoder.model.encoder.parameters() if p.requires_grad]
    assert parameters and all(p.grad is not None for p in parameters)
    for module, before in zip(normalisation, statistics):
        assert not module.training
        assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
