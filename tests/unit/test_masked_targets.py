"""What the quantiser of a masked prediction reads: aligned in time, and of each clip alone."""

import copy

import pytest
import torch
from speechbrain.lobes.features import Fbank
from tiny_huggingface import make_model

from brainquant.huggingface.encoder import HuggingFaceEncoder
from brainquant.huggingface.targets import LayerTargets, LogMelTargets

LENGTHS = torch.tensor([16000, 7123, 400, 399])


def make_clips():
    """Noise whose loudness changes every 40 ms, with something after the end of each clip."""
    generator = torch.Generator().manual_seed(0)
    loudness_BL = torch.rand(4, 25, generator=generator).repeat_interleave(640, 1)
    wavs_BL = torch.randn(4, 16000, generator=generator) * loudness_BL
    return wavs_BL + 0.1


def make_teacher(kind="HubertModel", **changes):
    return HuggingFaceEncoder(make_model(kind, num_hidden_layers=3, **changes))


def make(name):
    return LogMelTargets(n_mels=20) if name == "log-mel" else LayerTargets(make_teacher(), 2)


@pytest.mark.parametrize("name", ["log-mel", "layer"])
def test_a_clip_has_the_same_targets_alone_and_in_a_batch(name):
    targets, wavs_BL = make(name), make_clips()
    with torch.autocast("cpu", torch.bfloat16):
        together_BTI = targets(wavs_BL, LENGTHS, 49)
    assert together_BTI.dtype == torch.float32 and not together_BTI.requires_grad
    assert together_BTI.shape == (4, 49, targets.input_dim)
    frames_B = [49, 22, 1, 0]
    for clip_L, length, inputs_TI, frames in zip(wavs_BL, LENGTHS, together_BTI, frames_B):
        assert (inputs_TI[frames:] == 0).all()
        if frames:
            alone_TI = targets(clip_L[None, :length], length[None], frames)[0]
            torch.testing.assert_close(inputs_TI[:frames], alone_TI, rtol=0, atol=1e-4)
        if frames > 1:  # each channel is normalised
            assert inputs_TI[:frames].mean(0).abs().max() < 1e-4
            deviations_I = inputs_TI[:frames].std(0, correction=0)
            torch.testing.assert_close(
                deviations_I, torch.ones_like(deviations_I), rtol=0, atol=0.01
            )


@pytest.mark.parametrize("field", [400, 720])
def test_log_mel_windows_lie_around_the_middle_of_an_encoder_frame(field):
    targets = LogMelTargets(field=field, n_mels=20)
    num_frames = (16000 - field) // 320 + 1
    wavs_BL = torch.zeros(1, 16000)
    found_BTI = targets.frames(make_clips()[:1], LENGTHS[:1], num_frames)
    assert found_BTI.shape == (1, num_frames, 40)
    fbank = Fbank(n_mels=20)
    for frame in (3, 20):
        for half, middle in enumerate((-80, 80)):
            # The second frame that Fbank makes of 640 samples has its middle at sample 160.
            centre = frame * 320 + field // 2 + middle
            part_BL = make_clips()[:1, centre - 320 : centre + 320]
            expected_F = fbank(part_BL)[0, 2]
            found_F = found_BTI[0, frame, 20 * half : 20 * half + 20]
            torch.testing.assert_close(found_F, expected_F, rtol=0, atol=1e-3)
    # A click is heard in the frames around it, as early as late.
    middle = 20 * 320 + field // 2
    wavs_BL[0, middle] = 1.0
    loud_T = targets.frames(wavs_BL, LENGTHS[:1], num_frames)[0].amax(1) > -50
    assert loud_T.nonzero()[:, 0].tolist() == [20]


def test_frames_of_other_strides_are_refused_by_name():
    assert LogMelTargets(field=800, stride=640, n_mels=8).input_dim == 32
    with pytest.raises(ValueError, match="its frames are 200 samples apart.*set target_layer"):
        LogMelTargets(stride=200)


def test_a_layer_is_read_from_a_frozen_model_that_belongs_to_no_state():
    teacher = make_teacher("WavLMModel")
    wavs_BL, lengths_B = make_clips()[:1], LENGTHS[:1]
    (expected_BTD,) = copy.deepcopy(teacher).eval().layer_outputs(wavs_BL, lengths_B, [2])
    targets = LayerTargets(teacher, 2).train()
    encoder = HuggingFaceEncoder(make_model("WavLMModel", seed=1), targets=targets)
    names = [*encoder.state_dict(), *dict(encoder.named_parameters())]
    assert not [name for name in names if name.startswith("targets")]
    found_BTD = targets.frames(wavs_BL, lengths_B, 49)
    torch.testing.assert_close(found_BTD, expected_BTD)
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    encoder.to("meta")
    assert {p.device.type for p in teacher.parameters()} == {"meta"}
    for layer in (0, 4):
        with pytest.raises(ValueError, match=f"from 1 to 3, the layers of the model.*got {layer}"):
            LayerTargets(make_teacher(), layer)
