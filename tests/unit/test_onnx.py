"""ONNX Runtime gives what the encoder gives, in a process that has no torch."""

import copy
import functools
import getpass
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch
from speechbrain.lobes.features import MFCC, Fbank
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
from speechbrain.nnet.CNN import Conv2d
from speechbrain.processing.features import STFT
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig
from tones import batched

import brainquant
from brainquant import (
    GumbelVectorQuantizer,
    KMeansQuantizer,
    LibraryQuantizer,
    VectorQuantizer,
)
from brainquant.cli import main
from brainquant.inference import PretrainedEncoder
from brainquant.models import (
    BestRQEncoder,
    ChannelsLastConv2d,
    DynamicChunkEncoder,
    InputNormalization,
    MaskingEncoder,
    Wav2Vec2Encoder,
    Wav2Vec2Extractor,
)
from brainquant.publishing.onnx import export, export_onnx, front
from brainquant.publishing.onnx.check import make_clips
from brainquant.publishing.onnx.layers import make_exportable
from brainquant.publishing.onnx.traced import TracedEncoder

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/how_to/onnx.md").read_text("utf-8")
RATE = 16000
NO_CODES = "the file gives no codes: LibraryQuantizer has no form in ONNX"
# Begins each program: neither torch nor this package can be imported in it.
FORBID = """
import sys
class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchaudio", "speechbrain", "brainquant"):
            raise ImportError(f"{name} is not for this process")
sys.meta_path.insert(0, Forbidden())
"""
# Runs the model on the batches of a file.
PROGRAM = """
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
arrays, outputs = numpy.load("batches.npz"), {}
for n in range(len(arrays) // 2):
    inputs = {name: arrays[f"{name}{n}"] for name in ("wavs", "lengths")}
    for output, value in zip(session.get_outputs(), session.run(None, inputs)):
        outputs[f"{output.name}{n}"] = value
numpy.savez("results.npz", **outputs)
"""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def run_without_torch(program, folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", FORBID + program, *arguments],
        capture_output=True, text=True, timeout=300, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def best_rq(quantiser=None, norm_type="sentence", chunks=None, conv=ChannelsLastConv2d, **changes):
    torch.manual_seed(0)
    kind = {"encoder_module": "conformer", "attention_type": "RelPosMHAXL"}
    kind |= {"causal": False, "normalize_before": True}
    transformer = TransformerASR(
        tgt_vocab=1, input_size=16, d_model=16, nhead=2, num_encoder_layers=1,
        num_decoder_layers=0, d_ffn=32, **{**kind, **changes},
    )  # fmt: skip
    front_end = ConvolutionFrontEnd(
        (1, 8, 16), num_blocks=2, num_layers_per_block=1, out_channels=[4, 4], strides=[2, 2],
        residuals=[False, False], conv_module=conv,
    )  # fmt: skip
    normalize = InputNormalization(norm_type=norm_type)
    encoder = BestRQEncoder(
        Fbank(n_mels=16), normalize, front_end,
        DynamicChunkEncoder(transformer, lambda stage: chunks) if chunks else transformer,
    )  # fmt: skip
    normalize.train()(20 * torch.randn(1, 50, 16) - 30)  # global statistics
    return PretrainedEncoder(encoder, quantiser)


def wav2vec2(quantiser=None, **changes):
    torch.manual_seed(0)
    conformer = ConformerEncoder(1, 16, 32, 2, attention_type="regularMHA")
    transformer = MaskingEncoder(8, 16, conformer)
    extractor = Wav2Vec2Extractor(out_channels=[8] * 7)
    return PretrainedEncoder(Wav2Vec2Encoder(extractor, transformer, **changes), quantiser)


@pytest.fixture(scope="module")
def opened(exported, tmp_path_factory):
    """Gives an encoder and its ONNX file: a recipe's by the command of the page."""
    (command,) = blocks("bash")

    @functools.cache
    def make(name):
        folder = tmp_path_factory.mktemp(name)
        if name == "streaming":
            quantiser = LibraryQuantizer(64, 8, "FSQ", levels=[4, 4])
            pretrained = best_rq(quantiser, "global", DynChunkTrainConfig(4, 2))
            assert export_onnx(pretrained, folder / "onnx/model.onnx") == [NO_CODES]
        else:
            (folder / "results").mkdir()
            (folder / "results/my_encoder").symlink_to(exported(name))
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                main(shlex.split(command)[1:])
            pretrained = brainquant.load_pretrained(exported(name))
        assert os.listdir(folder / "onnx") == ["model.onnx"]
        return pretrained, folder / "onnx/model.onnx"

    return make


@pytest.mark.parametrize("name", ["best_rq", "wav2vec2", "streaming"])
def test_onnx_runtime_gives_what_the_encoder_gives_each_clip_alone(opened, name, tmp_path):
    pretrained, path = opened(name)
    shortest = pretrained.min_samples / RATE
    batches = [
        make_clips(RATE, seconds)
        for seconds in (
            [30.0], [1.0], [shortest], [shortest, 0.05], [1.0, 30.0, 2.5, 7.77],
            [5.0, 4.99, 0.3, 1.0, 3.3, 2.0, 5.0, 0.1],
        )
    ]  # fmt: skip
    arrays = {}
    for n, clips in enumerate(batches):
        wavs, lengths = batched(clips)
        for row, length in enumerate(lengths):
            wavs[row, length:] = torch.nan  # what follows the end of a clip is not read
        arrays |= {f"wavs{n}": wavs.numpy(), f"lengths{n}": lengths.numpy()}
    np.savez(tmp_path / "batches.npz", **arrays)
    run_without_torch(PROGRAM, tmp_path, path)
    results = np.load(tmp_path / "results.npz")
    for n, clips in enumerate(batches):
        hidden, frames = results[f"hidden{n}"], results[f"frames{n}"]
        codes = results.get(f"codes{n}")
        assert (codes is None) == (name == "streaming")
        for row, wav in enumerate(clips):
            with torch.no_grad():
                alone, valid = pretrained(wav[None])
            assert frames[row] == valid
            np.testing.assert_allclose(hidden[row, :valid], alone[0], rtol=0, atol=1e-3)
            assert not hidden[row, valid:].any()
            if codes is not None:
                expected = pretrained.codes(wav[None]).codes_BTG[0].numpy()
                assert (codes[row, : len(expected)] == expected).mean() > 0.99
                assert (codes[row, len(expected) :] == -1).all()


def test_a_file_says_what_it_is_and_nothing_of_this_machine(opened):
    pretrained, path = opened("best_rq")
    model = onnx.load(path)
    onnx.checker.check_model(model)
    says = {entry.key: entry.value for entry in model.metadata_props}
    assert says["fingerprint"] == pretrained.fingerprint()
    assert (says["sample_rate"], says["frame_rate"], says["dim"]) == ("16000", "25.0", "16")
    assert (says["num_codebooks"], says["codebook_size"]) == ("1", "32")
    assert says["brainquant_version"]
    content = path.read_bytes()
    for text in (str(ROOT), "site-packages", "stack_trace", f"/{getpass.getuser()}/", "File "):
        assert text.encode() not in content, text


def test_python_of_the_page_runs_without_torch(opened, tmp_path):
    pretrained, path = opened("best_rq")
    one, two = make_clips(RATE, [1.0, 0.4])
    soundfile.write(tmp_path / "one.wav", one, RATE, "FLOAT")
    soundfile.write(tmp_path / "two.wav", two, RATE, "FLOAT")
    (tmp_path / "onnx").symlink_to(path.parent)
    printed = run_without_torch("\n".join([*blocks("python"), "print(codes[0, 0, 0])"]), tmp_path)
    assert f"{pretrained.fingerprint()} {brainquant.__version__}\n" in printed
    assert printed.endswith(f"\n{int(pretrained.codes(one[None]).codes_BTG[0, 0, 0])}\n")


@pytest.mark.parametrize(
    "pretrained",
    [
        lambda: best_rq(attention_type="regularMHA", encoder_module="transformer", causal=True),
        lambda: best_rq(encoder_module="branchformer", csgu_linear_units=32, conv=Conv2d),
        lambda: best_rq(chunks=DynChunkTrainConfig(7)),
        lambda: best_rq(VectorQuantizer(64, 16, 2, 8)),
        lambda: best_rq(KMeansQuantizer(64, torch.randn(32, 64))),
        lambda: wav2vec2(
            GumbelVectorQuantizer(8, 32, (2.0, 0.5, 0.999), 2, 16, weight_proj_depth=2)
        ),
    ],
    ids=["transformer", "branchformer", "chunks", "vector", "k-means", "deep Gumbel"],
)
def test_the_traced_module_computes_what_the_encoder_computes(pretrained):
    pretrained = pretrained()
    wavs, lengths = batched(make_clips(RATE, [1.5, 0.7, 1.0]))
    with torch.no_grad():
        hidden, frames, *codes = TracedEncoder(pretrained)(wavs, lengths)
        expected = pretrained(wavs, lengths)
    assert torch.equal(frames, expected.frames_B)
    torch.testing.assert_close(hidden, expected.hidden, rtol=0, atol=1e-4)
    if codes:
        assert torch.equal(codes[0], pretrained.codes(wavs, lengths).codes_BTG)


@pytest.mark.parametrize(
    "features",
    [
        lambda: STFT(8000, n_fft=256, normalized_stft=True),
        lambda: STFT(16000, center=False),
        lambda: STFT(16000, pad_mode="reflect", window_fn=torch.hann_window),
        lambda: Fbank(n_mels=20, deltas=True, context=True, filter_shape="gaussian"),
        lambda: MFCC(n_mels=20, n_mfcc=10),
    ],
    ids=["normalised", "not centred", "reflected", "Fbank", "MFCC"],
)
def test_features_without_a_fourier_transform(features):
    wavs, _ = batched(make_clips(RATE, [0.5, 0.3]))
    features = features()
    expected = features(wavs)
    make_exportable(features)
    torch.testing.assert_close(features(wavs), expected, rtol=1e-3, atol=1e-3)


def test_a_file_that_differs_is_not_written(opened, tmp_path, monkeypatch):
    pretrained, path = opened("wav2vec2")
    monkeypatch.setattr(export, "trace", lambda *_: onnx.load(path))
    other = copy.deepcopy(pretrained)
    other.encoder.transformer.latent_encoder.norm.norm.bias.data += 0.002
    with pytest.raises(ValueError, match=r"exported to ONNX: hidden states would differ by 0\.002"):
        export_onnx(other, tmp_path / "model.onnx")
    assert not os.listdir(tmp_path)


def test_a_file_that_does_not_run_is_not_written(opened, tmp_path, monkeypatch):
    pretrained, path = opened("wav2vec2")
    broken = onnx.load(path)
    broken.graph.output[0].name = "nothing"
    monkeypatch.setattr(export, "trace", lambda *_: broken)
    with pytest.raises(ValueError, match="exported to ONNX: ONNX Runtime cannot run") as caught:
        export_onnx(pretrained, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value) and not os.listdir(tmp_path)


def test_a_layer_without_a_form_in_onnx_is_one_clear_error(tmp_path, monkeypatch):
    def forward(self, wavs_BL, lengths_B):
        return wavs_BL[:, :: int(wavs_BL.max() + 1), None], None

    monkeypatch.setattr(front.OnnxWav2Vec2Extractor, "forward", forward)
    with pytest.raises(ValueError, match="exported to ONNX: one of its layers has no") as caught:
        export_onnx(wav2vec2(), tmp_path / "model.onnx")
    assert "\n" not in str(caught.value) and not os.listdir(tmp_path)


def test_what_to_install_is_said_first(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r'pip install "brainquant\[onnx\]"'):
        export_onnx(wav2vec2(), tmp_path / "model.onnx")
