"""ONNX Runtime beside torch: hidden states of waveforms, on 2 cores.

> python tests/benchmarks/onnx_runtime.py

Encoders of the sizes of ToySpeech's recipes with random weights, or the model that is given: a
run, an exported folder. Each is exported; then torch and ONNX Runtime encode the same batches,
alternating. ONNX Runtime computes the codes of the quantiser, too. `--base` has the sizes of
LibriSpeech's recipes. About 40 seconds on 2 cores; with `--base` 5 minutes.
"""

import argparse
import functools
import tempfile
from pathlib import Path

import onnxruntime
import torch
from measure import alternate, machine, print_table
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR

import brainquant
from brainquant import GumbelVectorQuantizer, RandomProjectionQuantizer
from brainquant.inference import PretrainedEncoder
from brainquant.models import (
    BestRQEncoder,
    ChannelsLastConv2d,
    InputNormalization,
    MaskingEncoder,
    Wav2Vec2Encoder,
    Wav2Vec2Extractor,
)
from brainquant.publishing.onnx import export_onnx

# Seconds of the clips of a batch.
BATCHES = {
    "1 x 1 s": [1], "1 x 5 s": [5], "1 x 30 s": [30], "8 x 2 s": [2] * 8,
    "8 x 2 to 15 s": [15, 13, 11, 10, 8, 6, 4, 2],
}  # fmt: skip
# Width, layers, heads, feed-forward; channels of the front end or of the extractor.
SMALL = {"best_rq": (144, 4, 4, 576, [32, 32]), "wav2vec2": (144, 3, 4, 576, [64] * 2 + [128] * 5)}
BASE = {"best_rq": (576, 12, 8, 2048, [128, 32]), "wav2vec2": (768, 12, 8, 3072, [512] * 7)}


def best_rq(dim, layers, heads, ffn, channels):
    transformer = TransformerASR(
        input_size=640, tgt_vocab=1, d_model=dim, nhead=heads, num_encoder_layers=layers,
        num_decoder_layers=0, d_ffn=ffn, encoder_module="conformer", causal=False,
        attention_type="RelPosMHAXL", normalize_before=True, activation=torch.nn.GELU,
    )  # fmt: skip
    front_end = ConvolutionFrontEnd(
        (8, 10, 80), num_blocks=2, num_layers_per_block=1, out_channels=channels, strides=[2, 2],
        residuals=[False, False], conv_module=ChannelsLastConv2d,
    )  # fmt: skip
    normalize = InputNormalization(norm_type="sentence")
    encoder = BestRQEncoder(Fbank(n_mels=80), normalize, front_end, transformer)
    return PretrainedEncoder(encoder, RandomProjectionQuantizer(320, 16, 1024))


def wav2vec2(dim, layers, heads, ffn, channels):
    conformer = ConformerEncoder(
        layers, dim, ffn, heads, attention_type="regularMHA", activation=torch.nn.GELU
    )
    transformer = MaskingEncoder(channels[-1], dim, conformer)
    encoder = Wav2Vec2Encoder(Wav2Vec2Extractor(out_channels=channels), transformer)
    return PretrainedEncoder(
        encoder, GumbelVectorQuantizer(channels[-1], 320, (2.0, 0.5, 0.999), 2, 128)
    )


def compare(name, pretrained, threads):
    """A row for each batch: seconds of both, their ratio and the largest difference."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        for note in export_onnx(pretrained, path):
            print(note)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for title, seconds in BATCHES.items():
        lengths = torch.tensor([s * pretrained.sample_rate for s in seconds])
        wavs = 0.1 * torch.randn(len(seconds), int(lengths.max()))
        inputs = {"wavs": wavs.numpy(), "lengths": lengths.numpy()}
        calls = {
            "torch": functools.partial(pretrained, wavs, lengths),
            "ONNX Runtime": functools.partial(session.run, None, inputs),
        }
        times = alternate(calls, repeats=5)
        off = (torch.from_numpy(session.run(None, inputs)[0]) - pretrained(wavs, lengths)[0]).abs()
        yield {
            "model": name, "batch": title, **times,
            "ratio": times["ONNX Runtime"] / times["torch"],
            "largest difference": float(off.max()),
        }  # fmt: skip


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="runs or exported folders")
    parser.add_argument("--base", action="store_true", help="the sizes of LibriSpeech's recipes")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"{machine()}; ONNX Runtime {onnxruntime.__version__}; {options.threads} threads")
    sizes = BASE if options.base else SMALL
    models = {name: brainquant.load_pretrained(name) for name in options.models} or {
        "BEST-RQ": best_rq(*sizes["best_rq"]), "wav2vec 2.0": wav2vec2(*sizes["wav2vec2"])
    }  # fmt: skip
    rows = [row for name, model in models.items() for row in compare(name, model, options.threads)]
    print_table("seconds of a call, waveforms in", rows)


if __name__ == "__main__":
    main()
