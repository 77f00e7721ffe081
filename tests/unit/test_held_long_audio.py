"""Long audio of held models gives what the whole recording gives, in bounded memory."""

import pytest
import torch
from tiny_huggingface import make_model, vary

from brainquant.huggingface.bert_encoder import W2vBertEncoder
from brainquant.huggingface.encoder import HuggingFaceEncoder
from brainquant.inference import PretrainedEncoder
from brainquant.inference.long_audio import codes_long, encode_long, encode_stream, measure
from brainquant.quantisers import RandomProjectionQuantizer

RATE = 16000
ENCODERS = {
    "group": lambda: HuggingFaceEncoder(vary(make_model("HubertModel", "group"))),
    "group with biases": lambda: HuggingFaceEncoder(
        vary(make_model("WavLMModel", "group", conv_bias=True)), do_normalize=False
    ),
    "layer": lambda: HuggingFaceEncoder(vary(make_model("Wav2Vec2Model", "layer"))),
    "w2v-bert": lambda: W2vBertEncoder(vary(make_model("Wav2Vec2BertModel"))),
}


@pytest.fixture(scope="module")
def encoders():
    return {name: make().eval() for name, make in ENCODERS.items()}


def recording(num_samples):
    """Noise whose level rises and falls, around a voltage that is not zero."""
    generator = torch.Generator().manual_seed(0)
    level_L = torch.exp(2 * torch.sin(torch.arange(num_samples) / RATE * 0.7) - 3)
    return torch.randn(num_samples, generator=generator) * level_L + 0.01


def whole(encoder, wav_L, layers):
    with torch.no_grad():
        hidden, frames_B = PretrainedEncoder(encoder)(wav_L[None], layers=layers)
    return [layer[0, : int(frames_B)] for layer in hidden]


def assert_close(result, expected):
    for one, other in zip(result, expected, strict=True):
        assert one.shape == other.shape
        assert float((one - other).norm()) < 1e-5 * float(other.norm())


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("more", [0, 77, 239])  # of w2v-BERT, one more frame that is left over
def test_statistics_are_those_of_the_whole_recording(encoders, name, more):
    """One window has all of it, so that only statistics could differ."""
    wav_L = recording(31 * RATE + more)
    result = encode_long(encoders[name], wav_L, layers=[0, 1, 2], context_seconds=40)
    assert_close(result, whole(encoders[name], wav_L, [0, 1, 2]))


@pytest.mark.parametrize("name", ENCODERS)
def test_codes_of_a_long_recording_are_those_of_the_whole(encoders, name):
    encoder, wav_L = encoders[name], recording(33 * RATE + 777)
    quantiser = RandomProjectionQuantizer(encoder.input_dim, 8, 64, seed=0).eval()
    codes_TG = codes_long(encoder, quantiser, wav_L)
    expected, frames_B = PretrainedEncoder(encoder, quantiser).codes(wav_L[None])
    assert codes_TG.shape == (int(frames_B[0]), 1)
    assert (codes_TG != expected[0, : len(codes_TG)]).sum() <= 2e-3 * len(codes_TG)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_stream_does_not_depend_on_its_blocks_and_can_have_statistics(encoders, name):
    encoder, wav_L = encoders[name], recording(33 * RATE)
    short_L = wav_L[: 4 * RATE + 13]
    one, other = (
        list(encode_stream(encoder, short_L.split(size), layers=[2], context_seconds=0.4))
        for size in (4000, 777)
    )
    assert sum(len(hidden[0]) for hidden, _ in one) == encoder.count_frames(len(short_L))
    for (hidden, start), (same, same_start) in zip(one, other, strict=True):
        assert start == same_start and torch.equal(hidden[0], same[0])
    statistics = measure(encoder, wav_L)
    stretches = encode_stream(encoder, wav_L.split(8000), statistics=statistics)
    assert_close([torch.cat([hidden for hidden, _ in stretches])], [encode_long(encoder, wav_L)])


@pytest.mark.parametrize("name", ["group", "w2v-bert"])
def test_two_minutes_are_never_in_one_tensor(encoders, name, largest_tensor):
    wav_L = recording(120 * RATE)
    blocks = [block.clone() for block in wav_L.split(2**16)]
    with largest_tensor() as largest:
        list(encode_stream(encoders[name], blocks, context_seconds=1))
    assert largest.elements < len(wav_L) / 2


def test_inputs_that_another_module_makes_are_refused_for_long_recordings():
    class Targets(torch.nn.Module):
        input_dim = 8

    encoder = HuggingFaceEncoder(make_model("HubertModel"), targets=Targets()).eval()
    wav_L = recording(31 * RATE)
    assert encode_long(encoder, wav_L, layers=[1])[0].shape == (1549, 16)
    with pytest.raises(ValueError, match="those of Targets, which are not made piece by piece"):
        encode_long(encoder, wav_L, layers=[0])
