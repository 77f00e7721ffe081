"""The upstream for s3prl, called as s3prl calls it: S3PRLUpstream, both Featurizers, the hub.

s3prl 0.4.18 does not import beside torchaudio 2.11, so the calls and the checks are repeated here.
"""

import importlib
import shutil
import sys
from pathlib import Path

import pytest
import torch

import brainquant
from brainquant.models import InputNormalization

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "s3prl"
SAMPLE_RATE = 16000


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The hub of an s3prl into which the folder was copied as the README says."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(FOLDER, site / "s3prl" / "upstream" / "brainquant")
    (site / "s3prl" / "__init__.py").touch()
    (site / "s3prl" / "upstream" / "__init__.py").touch()
    line = "from s3prl.upstream.brainquant.hubconf import *\n"
    assert line.strip() in (FOLDER / "README.md").read_text("utf-8")
    (site / "s3prl" / "hub.py").write_text(line, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield importlib.import_module("s3prl.hub")
    for name in [name for name in sys.modules if name.split(".")[0] == "s3prl"]:
        del sys.modules[name]


@pytest.fixture(params=["best_rq", "wav2vec2"])
def run(request, pretrained_run):
    return str(pretrained_run(request.param))


class Upstream:
    """What S3PRLUpstream does with an expert, with its checks."""

    def __init__(self, hub, ckpt):
        self.expert = hub.brainquant_custom(refresh=False, ckpt=ckpt)
        self.expert.eval()
        with torch.no_grad():
            states = self.expert([torch.randn(n, requires_grad=True) for n in (21000, 40001)])
        self.expert.train()
        self.num_layers = len(states["hidden_states"])
        (self.dim,) = {state.shape[-1] for state in states["hidden_states"]}
        self.stride = self.expert.get_downsample_rates("hidden_states")
        assert isinstance(self.stride, int)

    def __call__(self, wavs, lengths):
        asked = lengths
        if (missing := SAMPLE_RATE // 20 - int(lengths.max())) > 0:
            wavs = torch.nn.functional.pad(wavs, (0, missing))
            lengths = lengths + missing
        states = self.expert([wav[:n] for wav, n in zip(wavs, lengths)])["hidden_states"]
        assert isinstance(states, (list, tuple)) and len(states) == self.num_layers
        expected = len(range(0, int(lengths.max()), self.stride))
        fitted = []
        for state in states:
            frames = state.shape[1]
            assert max(frames, expected) // min(frames, expected) == 1
            state = torch.cat([state, state[:, -1:].repeat(1, max(0, expected - frames), 1)], 1)
            fitted.append(state[:, :expected])
        return fitted, (asked - 1).div(self.stride, rounding_mode="floor") + 1


def test_the_upstream_gives_the_layers_of_the_model(hub, run):
    upstream, model = Upstream(hub, run), brainquant.load_pretrained(run)
    assert (upstream.num_layers, upstream.dim) == (model.num_layers, model.dim)
    upstream.expert.eval()
    wavs, lengths = torch.randn(3, 32000), torch.tensor([32000, 9001, 16000])
    states, counted = upstream(wavs, lengths)
    expected, frames = model(wavs, lengths, layers=[1, 2])
    for row, (frame, length) in enumerate(zip(frames.minimum(counted), lengths)):
        alone = upstream.expert([wavs[row, :length]])["hidden_states"]
        for ours, theirs, single in zip(states, expected, alone):
            assert torch.equal(ours[row, :frame], theirs[row, :frame])
            assert (ours[row, frame : counted[row]] == ours[row, frame - 1]).all()  # repeated
            torch.testing.assert_close(single[0], ours[row, : counted[row]], rtol=0, atol=1e-5)
    # the weighted sum of a Featurizer stacks the layers, so their shapes have to be equal
    assert torch.stack(states).shape == (2, 3, int(counted.max()), model.dim)


def test_the_frames_of_any_clip_are_as_many_as_s3prl_counts(hub, run):
    upstream = Upstream(hub, run)
    for length in [1, 399, 400, 640, 641, 800, 801, 1279, 16000, 16001, 3 * SAMPLE_RATE + 77]:
        upstream(torch.randn(1, length), torch.tensor([length]))
        for state in upstream.expert([torch.randn(length)])["hidden_states"]:
            assert state.shape[1] == len(range(0, length, upstream.stride))
    wavs, lengths = torch.randn(2, SAMPLE_RATE), torch.tensor([SAMPLE_RATE, 30])
    states, _ = upstream(wavs, lengths)  # one clip is too short for a frame of wav2vec 2.0
    assert all(state.isfinite().all() for state in states)


def test_it_is_trained_through_s3prl_but_its_statistics_stay(hub, run):
    upstream = Upstream(hub, run)
    normalisations = [m for m in upstream.expert.modules() if isinstance(m, InputNormalization)]
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in normalisations]
    states, _ = upstream(torch.randn(2, SAMPLE_RATE), torch.full((2,), SAMPLE_RATE))
    sum(state.square().mean() for state in states).backward()
    layers = upstream.expert.encoder.encoder.layers
    assert all(p.grad is not None for p in layers.parameters())
    for module, values in zip(normalisations, before):
        assert all(torch.equal(values[k], v) for k, v in module.state_dict().items())


def test_wrong_input_is_one_clear_error(hub, pretrained_run, monkeypatch):
    folder = str(pretrained_run("best_rq"))
    with pytest.raises(ValueError, match="model_config is not used, got c.yaml; leave out -g"):
        hub.brainquant_custom(folder, "c.yaml")
    model = brainquant.load_pretrained(folder)
    model.encoder.sample_rate = 8000
    monkeypatch.setattr("s3prl.upstream.brainquant.expert.load_pretrained", lambda *_, **__: model)
    with pytest.raises(ValueError, match="trained on audio of 8000 Hz, but s3prl gives 16000 Hz"):
        hub.brainquant_custom(folder)
