"""Units of a frozen teacher: those of each clip alone, of its layer, and of no state."""

import shutil
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from tiny_huggingface import save_model

from brainquant import load_pretrained
from brainquant.errors import RunError
from brainquant.publishing.export import write_model
from brainquant.quantisers import Clips
from brainquant.targets import TeacherCodes
from brainquant.targets.keeping import keep_teacher
from brainquant.testing import PROMISES, check_ranks

LENGTHS = torch.tensor([16000, 7123, 400])


def make_clips(num_frames, input_dim=8):
    generator = torch.Generator().manual_seed(0)
    wavs_BL = torch.randn(3, 16000, generator=generator)
    wavs_BL *= torch.arange(16000) < LENGTHS[:, None]
    return Clips(["a", "b", "c"], wavs_BL, LENGTHS, torch.zeros(3, num_frames, input_dim))


def codes_of_each(folder, layer, centroids_VI, clips):
    """The slow way: each clip alone, through what a user holds."""
    encoder = load_pretrained(folder)
    for wav_L, length in zip(clips.wavs_BL, clips.lengths_B):
        (hidden_BTD,), _ = encoder(wav_L[None, :length], layers=[layer])
        yield torch.cdist(hidden_BTD[0], centroids_VI).argmin(1)


@pytest.fixture
def hubert(tmp_path):
    """A folder of transformers, 50 frames per second."""
    save_model(tmp_path / "hubert", "HubertModel")
    return tmp_path / "hubert"


@pytest.fixture
def student():
    """What is asked of the encoder that is trained: 25 frames per second."""
    return SimpleNamespace(sample_rate=16000, stride=640)


@pytest.mark.parametrize("kind, num_frames", [("ours", 26), ("transformers", 51)])
def test_codes_are_those_of_each_clip_alone(exported, hubert, kind, num_frames):
    folder = exported("best_rq") if kind == "ours" else hubert
    drawn = torch.get_rng_state()
    codes = TeacherCodes(8, folder, 1, clusters=6)
    assert torch.equal(torch.get_rng_state(), drawn)  # the weights of the student stay the same
    clips = make_clips(num_frames)
    assert codes.frames_to_fit
    frames_BTD = codes.read(clips)
    codes.fit(frames_BTD[frames_BTD.isfinite().all(-1)])
    with torch.autocast("cpu", torch.bfloat16):
        found_BTG = codes.encode_clips(clips)
    assert found_BTG.shape == (3, num_frames, 1) and not found_BTG.requires_grad
    for found_T, expected_T in zip(
        found_BTG[..., 0], codes_of_each(folder, 1, codes.centroids, clips)
    ):
        assert torch.equal(found_T[: len(expected_T)], expected_T)
        assert (found_T[len(expected_T) :] == -1).all()  # and so no target


def test_the_teacher_belongs_to_no_state_and_stops_at_its_layer(exported):
    codes = TeacherCodes(8, exported("best_rq"), 1, clusters=6).train()
    teacher = codes.frozen.encoder
    assert not [*codes.parameters()] and {*codes.state_dict()} == {"centroids", "fitted"}
    assert len(teacher.layers) == 1 and not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert codes.input_dim == teacher.dim
    codes.to("meta")
    assert {p.device.type for p in teacher.parameters()} == {"meta"}


@pytest.mark.parametrize(
    "check", [check for check in PROMISES if check is not check_ranks], ids=lambda c: c.__name__
)
def test_the_contract_is_kept(exported, check):
    folder = exported("best_rq")
    check(partial(TeacherCodes, teacher=folder, layer=2, clusters=17), load_pretrained(folder).dim)


def test_what_does_not_fit_is_refused_by_name(exported, hubert, student, tmp_path):
    folder = exported("best_rq")
    TeacherCodes(8, folder, 2, clusters=6).check_encoder(student)
    with pytest.raises(ValueError, match="hubert has 50 frames per second, but .* has 25, .*stack"):
        TeacherCodes(8, hubert, 2, clusters=6).check_encoder(student)
    student.sample_rate = 8000
    with pytest.raises(ValueError, match="of 16000 Hz, but .* 8000 Hz; set sample_rate: 16000"):
        TeacherCodes(8, folder, 2, clusters=6).check_encoder(student)
    with pytest.raises(ValueError, match="layer: there is no layer 3; .* 1 to 2; set layer:"):
        TeacherCodes(8, folder, 3, clusters=6)
    with pytest.raises(ValueError, match="^teacher: .* neither the folder of a run nor"):
        TeacherCodes(8, tmp_path, 1, clusters=6)
    centroids = tmp_path / "k.safetensors"
    model = load_pretrained(folder)
    content = {"centroids": torch.randn(6, model.dim)}
    save_file(content, centroids, {"layer": "1", "fingerprint": model.fingerprint()})
    assert TeacherCodes(8, folder, 1, centroids=str(centroids)).codebook_size == 6
    with pytest.raises(ValueError, match="was fitted to layer 1, not to layer 2"):
        TeacherCodes(8, folder, 2, centroids=str(centroids))
    with pytest.raises(ValueError, match="was fitted to another model"):
        TeacherCodes(8, hubert, 1, centroids=str(centroids))


def test_a_model_of_transformers_is_kept_whole(hubert, tmp_path):
    kept = tmp_path / "run/needed/teacher"
    assert keep_teacher("teacher", str(hubert), str(kept)) == {"teacher": str(kept)}
    assert load_pretrained(kept).fingerprint() == load_pretrained(hubert).fingerprint()
    assert keep_teacher("teacher", str(tmp_path / "gone"), str(kept)) == {"teacher": str(kept)}
    assert keep_teacher("teacher", str(tmp_path / "gone"), str(tmp_path / "none")) is None


def test_a_run_keeps_its_teacher_and_refuses_another(exported, tmp_path):
    teacher, kept = str(tmp_path / "teacher"), str(tmp_path / "run/needed/teacher")
    shutil.copytree(exported("best_rq"), teacher)
    for _ in range(2):
        assert keep_teacher("teacher", teacher, kept) == {"teacher": kept}
    model = load_pretrained(teacher)
    with torch.no_grad():
        next(model.encoder.parameters()).add_(1.0)
    write_model(teacher, model, {})
    with pytest.raises(
        RunError, match="teacher: .* has changed since the run .* copy: set teacher:"
    ):
        keep_teacher("teacher", teacher, kept)
