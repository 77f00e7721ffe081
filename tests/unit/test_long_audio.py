"""Long audio gives what the whole recording gives, wherever it is cut, in bounded memory."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_encoders import best_rq, mfcc, wav2vec2

from brainquant import RandomProjectionQuantizer
from brainquant.data.audio import AudioReader
from brainquant.inference import PretrainedEncoder, sources
from brainquant.inference.long_audio import codes_long, encode_long, encode_stream, measure
from brainquant.models import InputNormalization

RATE = 16000
CHUNKS = {"chunks of 8 after 2": (8, 2), "chunks of 4 after 1": (4, 1), "chunks of 16": (16, 0)}
ENCODERS = {
    "sentence": best_rq,
    "global": lambda: best_rq(normalize=InputNormalization(norm_type="global")),
    "batch": lambda: best_rq(normalize=InputNormalization(norm_type="batch")),
    "mean only": lambda: best_rq(
        normalize=InputNormalization(norm_type="sentence", std_norm=False)
    ),
    "mfcc": lambda: best_rq(mfcc()),
    "wav2vec2": wav2vec2,
    **{name: lambda chunks=chunks: best_rq(chunks=chunks) for name, chunks in CHUNKS.items()},
}


@pytest.fixture(scope="module")
def encoders():
    return {name: make() for name, make in ENCODERS.items()}


def recording(num_samples):
    """Noise whose level rises and falls by 50 dB, with a pause of digital silence."""
    generator = torch.Generator().manual_seed(0)
    level_L = torch.exp(3 * torch.sin(torch.arange(num_samples) / RATE * 0.7) - 4)
    wav_L = torch.randn(num_samples, generator=generator) * level_L
    wav_L[num_samples // 3 : num_samples // 2] = 0.0
    return wav_L


def encode_whole(encoder, wav_L, layers=None):
    with torch.no_grad():
        hidden, frames_B = PretrainedEncoder(encoder)(wav_L[None], layers=layers)
    hidden = [layer[0, : int(frames_B)] for layer in ([hidden] if layers is None else hidden)]
    return hidden[0] if layers is None else hidden


def assert_close(result, expected):
    torch.testing.assert_close(result, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["sentence", "wav2vec2", "chunks of 8 after 2"])
@pytest.mark.parametrize("num_samples", [1, 399, 400, 12345, 30 * RATE])
def test_a_short_recording_is_encoded_as_a_clip(encoders, name, num_samples):
    wav_L = recording(num_samples)
    for layers in (None, [2, 0, 1]):
        result = encode_long(encoders[name], wav_L, layers=layers)
        torch.testing.assert_close(result, encode_whole(encoders[name], wav_L, layers))


@pytest.mark.parametrize("name", ENCODERS)
def test_statistics_are_those_of_the_whole_recording(encoders, name):
    """One window has all of it, so that only statistics could differ."""
    wav_L = recording(34 * RATE + 77)
    result = encode_long(encoders[name], wav_L, layers=[0, 1, 2], context_seconds=40)
    assert_close(result, encode_whole(encoders[name], wav_L, [0, 1, 2]))


@pytest.mark.parametrize("name", CHUNKS)
def test_dynamic_chunks_give_the_whole_at_any_length(encoders, name):
    wav_L = recording(45 * RATE + 1)
    for layers in (None, [1], [2, 1]):
        result = encode_long(encoders[name], wav_L, layers=layers)
        expected = encode_whole(encoders[name], wav_L, layers)
        assert_close(result, expected)
    statistics = measure(encoders[name], wav_L)
    stream = encode_stream(encoders[name], wav_L.split(4097), statistics=statistics)
    assert_close(torch.cat([hidden for hidden, _ in stream]), encode_whole(encoders[name], wav_L))


# A window keeps 8 s: 200 frames of BEST-RQ, whose frames begin every 640 samples.
@pytest.mark.parametrize("name, field", [("sentence", -640), ("wav2vec2", 80)])
@pytest.mark.parametrize("seconds, more", [(32, 0), (32, 1), (32, -1), (36, 0), (36, 1), (31, 555)])
def test_windows_are_cut_from_the_features_of_the_whole(encoders, name, field, seconds, more):
    encoder = encoders[name]
    wav_L = recording(seconds * RATE + field + more)
    inputs = wav_L[None], torch.tensor([len(wav_L)])
    with torch.no_grad():
        if name == "wav2vec2":
            (feats_BTF, _), stack = encoder.extractor(*inputs), 1
        else:
            (feats_BTF, _), stack = encoder.features(*inputs), 4
        total = feats_BTF.shape[1] // stack
        context, expected = 4 * RATE // encoder.stride, []
        for start in range(0, total, 2 * context):
            first, last = max(0, start - context), start + 3 * context
            window_BTF = feats_BTF[:, first * stack : last * stack]
            hidden_BTD = encoder.encode_features(window_BTF, torch.tensor([window_BTF.shape[1]]))
            expected.append(hidden_BTD[0, start - first :][: 2 * context])
    result = encode_long(encoder, wav_L, context_seconds=4)
    assert len(result) == encoder.count_frames(len(wav_L)) == total
    assert_close(result, torch.cat(expected))


def test_more_context_is_closer_to_the_whole(encoders):
    wav_L = recording(50 * RATE)
    expected = encode_whole(encoders["sentence"], wav_L)
    far = [
        (encode_long(encoders["sentence"], wav_L, context_seconds=context) - expected).norm()
        for context in (1, 4, 16)
    ]
    assert far[2] < far[1] < far[0] < 0.1 * expected.norm()


@pytest.mark.parametrize("name", ["sentence", "wav2vec2"])
def test_codes_of_a_long_recording_are_those_of_the_whole(encoders, name):
    encoder, wav_L = encoders[name], recording(41 * RATE + 777)
    quantiser = RandomProjectionQuantizer(encoder.input_dim, 8, 64, seed=0).eval()
    for part_L in (wav_L, wav_L[: 3 * RATE], wav_L[:300]):
        codes_TG = codes_long(encoder, quantiser, part_L)
        expected, frames = PretrainedEncoder(encoder, quantiser).codes(part_L[None])
        assert codes_TG.shape == (int(frames[0]), 1) and codes_TG.dtype == torch.long
        assert (codes_TG != expected[0, : len(codes_TG)]).sum() <= 1e-3 * len(codes_TG)


# ---- files ---------------------------------------------------------------------------------


@pytest.fixture
def stereo(tmp_path):
    """A file of another rate with two channels."""

    def write(seconds, rate=44100):
        path, wav_L = tmp_path / "long.flac", recording(round(seconds * rate)).numpy()
        soundfile.write(path, np.stack([wav_L, 0.5 * wav_L], 1).clip(-1, 1), rate)
        return path

    return write


@pytest.mark.parametrize("seconds", [3.21, 33.3])
def test_a_file_is_resampled_and_mixed_which_is_said_once(encoders, stereo, seconds, caplog):
    path, encoder = stereo(seconds), PretrainedEncoder(encoders["sentence"])
    wav_L = AudioReader(RATE, resample=True, mix_down="mean")(path, seconds)
    sources._said.clear()
    (result,) = encoder.encode_file(path, layers=[1])
    assert_close(result, encode_long(encoder.encoder, wav_L, layers=[1])[0])
    encoder.encode_file(path)
    assert caplog.text.count("resampled to 16000 Hz") == caplog.text.count("the mean is used") == 1


def test_a_file_that_cannot_be_read_is_named_in_one_line(encoders, tmp_path):
    encoder = PretrainedEncoder(encoders["sentence"])
    with pytest.raises(ValueError, match=r"none\.wav: cannot be read: there is no such file$"):
        encoder.encode_file(tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("This is no audio. " * 100)
    with pytest.raises(ValueError, match=r"^\S*text\.wav: cannot be read [^\n]*$"):
        encoder.encode_file(tmp_path / "text.wav")


@pytest.mark.parametrize("name", ["sentence", "wav2vec2", "chunks of 8 after 2"])
def test_two_minutes_are_never_in_one_tensor(encoders, name, stereo, largest_tensor):
    """The waveform has two million samples; attention to all frames would have 18 million."""
    encoder, path = encoders[name], stereo(120, rate=22050)
    quantiser = RandomProjectionQuantizer(encoder.input_dim, 8, 64, seed=0).eval()
    with largest_tensor() as largest:
        encode_long(encoder, path, context_seconds=2)
        codes_long(encoder, quantiser, path)
    assert largest.elements < 900_000


HOUR = """
import sys; sys.path.insert(0, {tests!r})
from tiny_encoders import best_rq, wav2vec2
from brainquant.inference.long_audio import codes_long, encode_long
from brainquant.quantisers import RandomProjectionQuantizer

encoder = {kind}()
quantiser = RandomProjectionQuantizer(encoder.input_dim, 8, 64, seed=0).eval()

def run(path):
    return encode_long(encoder, path), codes_long(encoder, quantiser, path)

run({short!r})  # what is loaded late
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["best_rq", "wav2vec2"])
def test_an_hour_takes_no_more_memory_than_a_window(tmp_path, extra_mb, kind):
    minute = np.stack([recording(60 * 44100).numpy().clip(-1, 1)] * 2, 1)
    paths = {minutes: str(tmp_path / f"{minutes}.flac") for minutes in (1, 60)}
    for minutes, path in paths.items():
        with soundfile.SoundFile(path, "w", 44100, 2) as file:
            for _ in range(minutes):
                file.write(minute)
    tests = str(Path(__file__).parents[1])
    lines = HOUR.format(tests=tests, kind=kind, short=paths[1])
    assert extra_mb(lines, f"run({paths[60]!r})") < 120  # the waveform has 230 MB at 16 kHz


# ---- streams -------------------------------------------------------------------------------


@given(
    name=st.sampled_from(["sentence", "mfcc", "wav2vec2", "chunks of 8 after 2"]),
    num_samples=st.integers(0, 4 * RATE),
    cuts=st.lists(st.integers(0, 4 * RATE), max_size=12),
)
def test_a_stream_does_not_depend_on_its_blocks(encoders, name, num_samples, cuts):
    wav_L = recording(4 * RATE)[:num_samples]
    expected = list(encode_stream(encoders[name], [wav_L], layers=[0, 2], context_seconds=0.3))
    blocks = np.split(wav_L.numpy(), sorted(cuts))
    stretches = list(encode_stream(encoders[name], blocks, layers=[0, 2], context_seconds=0.3))
    assert [start for _, start in stretches] == [start for _, start in expected]
    frames = encoders[name].count_frames(num_samples) if num_samples else 0
    assert sum(len(hidden[1]) for hidden, _ in stretches) == frames
    for (hidden, _), (other, _) in zip(stretches, expected):
        assert all(torch.equal(one, same) for one, same in zip(hidden, other))


@pytest.mark.parametrize("name", ["sentence", "wav2vec2"])
def test_a_stream_with_the_statistics_of_a_file_gives_what_the_file_gives(encoders, name):
    wav_L = recording(37 * RATE + 5)
    statistics = measure(encoders[name], wav_L)
    for _ in range(2):  # the stream does not change the statistics
        stretches = encode_stream(encoders[name], wav_L.split(8000), statistics=statistics)
        assert_close(torch.cat([h for h, _ in stretches]), encode_long(encoders[name], wav_L))


@pytest.mark.parametrize(
    "name, kept, wait",
    [("sentence", 50, 3.0), ("wav2vec2", 100, 3.0), ("chunks of 8 after 2", 24, 1)],
)
def test_a_stream_waits_for_its_context_only(encoders, name, kept, wait):
    """It needs no end. A second of context: 2 s of each window are kept, or three chunks."""
    encoder, heard = PretrainedEncoder(encoders[name]), 0.0

    def microphone():
        nonlocal heard
        while True:
            heard += 0.05
            yield recording(800).numpy()

    stretches = encoder.encode_stream(microphone(), context_seconds=1)
    for number, (hidden, start) in enumerate(itertools.islice(stretches, 5)):
        assert (start, len(hidden)) == (number * kept, kept)
        late = heard - start / encoder.frame_rate - wait
        assert -0.05 <= late <= 0.6  # features are made of half a second at once


# ---- bad input -----------------------------------------------------------------------------


def test_wrong_input_is_refused_before_any_work(encoders):
    encoder, wav_L = encoders["sentence"], recording(RATE)
    with pytest.raises(ValueError, match="there is no layer 3; the encoder has the layers 1 to 2"):
        encode_long(encoder, "none.wav", layers=[1, 3])
    with pytest.raises(ValueError, match="context_seconds must be .*, got 0; leave it out for 8 s"):
        encode_long(encoder, "none.wav", context_seconds=0)
    with pytest.raises(ValueError, match=r"shape \(samples,\), .* got torch.float32 of shape"):
        encode_long(encoder, wav_L[None])
    with pytest.raises(ValueError, match="of floats from -1 to 1, got torch.int16"):
        next(encode_stream(encoder, [np.zeros(800, np.int16)]))
    with pytest.raises(ValueError, match="must not have samples that are NaN or infinite"):
        next(encode_stream(encoder, [wav_L, np.full(800, np.nan)]))
    with pytest.raises(ValueError, match="there is no layer -1"):
        encode_stream(encoder, [], layers=[-1])  # before the first block


def test_a_normalisation_that_is_not_known_is_refused():
    class Own(torch.nn.Module):
        def forward(self, x_BTF, lengths_B):
            return x_BTF - x_BTF.mean(1, keepdim=True)

    encoder, wav_L = best_rq(normalize=Own()), recording(31 * RATE)
    assert encode_long(encoder, wav_L[: 2 * RATE]).shape == (51, 16)
    with pytest.raises(ValueError, match="normalize: what Own does to a part of long audio is not"):
        encode_long(encoder, wav_L)
