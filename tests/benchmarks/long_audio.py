"""Long recordings in windows: how far from the whole recording, how fast, and in how much memory.

> python tests/benchmarks/long_audio.py <run> <run> --speech recording.flac --corpus data/ToySpeech

For each run: the difference to the hidden states of the whole recording, as a share of their norm,
over the context on both sides of a window; for wav2vec 2.0, whose positions are absolute, also with
the positions that frames have in the whole recording. With a corpus: the share of phones that a
linear classifier, fitted to clips, reads from its test clips one after the other as one recording.
Last, an hour of 44.1 kHz stereo in a process of its own. About 5 minutes on 2 cores.
"""

import argparse
import csv
import json
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import torch
from measure import in_process, machine, peak_mb, print_table
from speechbrain.lobes.models.transformer.Transformer import PositionalEncoding

import brainquant
from brainquant.data.alignments import find_alignments
from brainquant.data.audio.conversion import Resampler
from brainquant.data.toy_speech import prepare_toy_speech
from brainquant.evaluation import probe_layers
from brainquant.evaluation.utterances import load_utterances
from brainquant.inference.sources import blocks_of
from brainquant.inference.window_encoder import encode_windows
from brainquant.inference.windows import Plan
from brainquant.models import Wav2Vec2Encoder

CONTEXTS = (0.5, 1, 2, 4, 8, 16)
KEPT = (4, 16)  # seconds, beside twice the context
TRAIN_CLIPS = 160  # of the classifier of phones


@contextmanager
def positions_of_the_whole(encoder, begins):
    """Gives the frames of windows the positions that they have in the whole recording."""
    encoding = encoder.transformer.positional_encoding
    begins = iter(begins)

    def forward(x_BTD):
        begin = next(begins)
        table = PositionalEncoding(x_BTD.shape[2], begin + x_BTD.shape[1])
        return table.pe[:, begin:]

    encoding.forward = forward
    try:
        yield
    finally:
        del encoding.forward


@torch.no_grad()
def encode_in(encoder, wav_L, context, kept, layer, of_the_whole=False):
    """Hidden states of a recording in windows."""
    rate = encoder.sample_rate / encoder.stride
    plan = Plan(max(1, round(kept * rate)), *[max(1, round(context * rate))] * 2)
    front, make_blocks = encoder.in_pieces(), blocks_of(wav_L, encoder.sample_rate)
    front.measure(make_blocks, inputs=False)

    def encode():
        pieces = front.pieces(make_blocks())
        windows = encode_windows(encoder, front, pieces, plan, layer and [layer])
        return torch.cat([hidden for (hidden,), _ in windows])

    if not of_the_whole:
        return encode()
    starts = range(0, encoder.count_frames(len(wav_L)), plan.step)
    with positions_of_the_whole(encoder, [max(0, start - plan.before) for start in starts]):
        return encode()


@torch.no_grad()
def encode_whole(encoder, wav_L, layer=None):
    inputs = wav_L[None], torch.tensor([len(wav_L)])
    if layer is None:
        return encoder(*inputs).hidden_BTD[0]
    return encoder.layer_outputs(*inputs, [layer])[0][0]


def differences(encoder, wav_L):
    """A row for each window: the difference to the whole recording, and the time that it takes."""
    began = time.process_time()
    whole_TD = encode_whole(encoder, wav_L)
    seconds = len(wav_L) / encoder.sample_rate
    print(f"the whole recording of {seconds:.0f} s at once: {time.process_time() - began:.1f} s")
    absolute = isinstance(encoder, Wav2Vec2Encoder)
    for context in CONTEXTS:
        for kept in sorted({2 * context, *KEPT}):
            began = time.process_time()
            hidden_TD = encode_in(encoder, wav_L, context, kept, None)
            took = time.process_time() - began
            row = {"context, s": context, "kept, s": kept, "CPU ms per s": 1000 * took / seconds}
            row["difference, %"] = percent(hidden_TD, whole_TD)
            if absolute:
                hidden_TD = encode_in(encoder, wav_L, context, kept, None, of_the_whole=True)
                row["with its positions, %"] = percent(hidden_TD, whole_TD)
            yield row


def percent(hidden_TD, whole_TD):
    return float(100 * (hidden_TD - whole_TD).norm() / whole_TD.norm())


def phones(encoder, corpus, layer):
    """A row for each window: the phones that are read from it, per cent."""

    def load(split):
        alignments = find_alignments(corpus / "phones" / split)
        return load_utterances(
            str(corpus / f"{split}.csv"), str(corpus), encoder, alignments=alignments
        )[0]

    train, test = load("train"), load("test")
    chosen = np.random.default_rng(0).permutation(len(train))[:TRAIN_CLIPS]
    train = [train[index] for index in chosen]
    fitted_to = [encode_whole(encoder, clip.sig, layer).numpy() for clip in train]
    recording = torch.cat([clip.sig for clip in test])

    # Frames of the clips and of the recording have other times: clips are found by their seconds.
    times = encoder.frame_times(encoder.count_frames(len(recording)))
    labels, begin = np.zeros(len(times), test[0].labels.dtype), 0
    for clip in test:
        own = encoder.frame_times(len(clip.labels)) + begin / encoder.sample_rate
        inside = (times >= own[0]) & (times <= own[-1] + 0.05)
        labels[inside] = clip.labels[np.abs(times[inside, None] - own).argmin(1)]
        begin += len(clip.sig)

    def read(utterances, names):
        layers = {"train": [fitted_to], "valid": [utterances], "test": [utterances]}
        named = {"train": [clip.labels for clip in train], "valid": names, "test": names}
        return 100 * probe_layers(layers, named, seed=0)[0][1]

    alone = [encode_whole(encoder, clip.sig, layer).numpy() for clip in test]
    whole = encode_whole(encoder, recording, layer).numpy()
    for name, share in (
        ("each clip alone", read(alone, [clip.labels for clip in test])),
        ("the whole at once", read([whole], [labels])),
    ):
        yield {"windows": name, "phones, %": share, "with its positions, %": None}
    for context in CONTEXTS:
        arguments = encoder, recording, context, 2 * context, layer
        row = {"windows": f"{context} s of context"}
        row["phones, %"] = read([encode_in(*arguments).numpy()], [labels])
        row["with its positions, %"] = None
        if isinstance(encoder, Wav2Vec2Encoder):
            hidden_TD = encode_in(*arguments, of_the_whole=True)
            row["with its positions, %"] = read([hidden_TD.numpy()], [labels])
        yield row


def hour(run, wav_L, rate, folder):
    """Seconds and megabytes of an hour of 44.1 kHz stereo, in a process of its own."""
    path = Path(folder) / "hour.flac"
    if not path.exists():
        minute = Resampler(44100)(wav_L[: 60 * rate], rate).numpy()
        with soundfile.SoundFile(path, "w", 44100, 2) as file:
            for _ in range(60):
                file.write(np.stack([minute, minute], 1))
    return in_process(__file__, run, "--peak", path)


def peak(run, path):
    """A row about a file: of a process that has done nothing else."""
    encoder = brainquant.load_pretrained(run)
    began = time.process_time()
    hidden_TD = encoder.encode_file(path)
    seconds = time.process_time() - began
    return {
        "run": Path(run).name, "CPU seconds": seconds, "frames": len(hidden_TD),
        "of them the result, MB": hidden_TD.numel() * 4 / 2**20, "peak, MB": peak_mb(),
    }  # fmt: skip


def read_speech(paths, encoder):
    parts = [torch.cat([*blocks_of(path, encoder.sample_rate)()]) for path in paths]
    return torch.cat(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="folders of runs, or exported ones")
    parser.add_argument(
        "--speech", nargs="+", help="audio files, one after the other; default: made"
    )
    parser.add_argument("--seconds", type=float, default=200, help="of the speech")
    parser.add_argument("--corpus", type=Path, help="a ToySpeech, for the phones")
    parser.add_argument("--layer", type=int, default=2, help="the layer that phones are read from")
    parser.add_argument("--peak", help="only the memory for this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        print(json.dumps(peak(options.runs[0], options.peak)))
        return
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        if not options.speech:
            prepare_toy_speech(folder, train_minutes=options.seconds / 60)
            with open(f"{folder}/train.csv", encoding="utf-8", newline="") as file:
                wavs = [row["wav"] for row in csv.DictReader(file)]
            options.speech = [wav.replace("$data_root", folder) for wav in wavs]
        hours = []
        for run in options.runs:
            encoder = brainquant.load_pretrained(run).encoder
            wav_L = read_speech(options.speech, encoder)
            wav_L = wav_L[: round(options.seconds * encoder.sample_rate)]
            print_table(f"{run}: windows and the whole", list(differences(encoder, wav_L)))
            if options.corpus:
                rows = list(phones(encoder, options.corpus, options.layer))
                print_table(f"{run}: phones, layer {options.layer}", rows)
            hours.append(hour(run, wav_L, encoder.sample_rate, folder))
        print_table("an hour of 44.1 kHz stereo, one thread", hours)


if __name__ == "__main__":
    main()
