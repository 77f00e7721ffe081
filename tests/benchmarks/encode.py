"""Features of a corpus: `brainquant encode` beside a loop over single files.

> python tests/benchmarks/encode.py --output encode.json

The loop is that of fairseq's dump_hubert_feature.py: it reads a file, encodes it alone up to the
layer, and appends to one array; torch has the threads that it takes by itself. ssl-kaldi-feats does
the same, but computes all layers. Both loops have our encoder, with its quicker layers. Each row
is a whole program in a process of its own, from the first import to the last byte. Models have
random weights. The clips are noise of the lengths of LibriSpeech's train-clean-100, or those of
`--source`. Memory is the peak of the largest process; the last row encodes one batch, the largest.
About 4 minutes on 2 cores; `--only small` runs what has that in its name, `--batches 10,40` tries
other batches.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from measure import machine, print_table
from steps import open_recipe, recipe_arguments

from brainquant.data.audio.headers import read_header
from brainquant.extraction.clips import Clip
from brainquant.extraction.plan import make_plan
from brainquant.training.hparams import parse_arguments
from brainquant.training.resolve import write_hparams

RATE = 16000
# Deciles of the seconds of 126 utterances of LibriSpeech's train-clean-100
DECILES = [2.0, 4.8, 9.7, 12.0, 13.0, 14.0, 14.5, 14.8, 15.3, 15.8, 17.2]
# By model: minutes of speech, and the layer
MODELS = {"best_rq small, as in our recipe": (40, 2), "best_rq base": (10, 8)}

LOOP = """
import sys, time
import numpy as np, soundfile, torch
from brainquant import load_pretrained
model, source, layer, output, threads, computes = sys.argv[1:]
if threads != "default":
    torch.set_num_threads(int(threads))
encoder = load_pretrained(model)
layers = [int(layer)]
if computes == "all layers":
    layers += range(1, encoder.num_layers + 1)
with open(source) as file:
    root, *lines = file.read().splitlines()
with open(output, "wb") as features, open(output + ".len", "w") as lengths, torch.inference_mode():
    for line in lines:
        wav, _ = soundfile.read(f"{root}/{line.split(chr(9))[0]}", dtype="float32")
        (hidden, *_), _ = encoder(torch.from_numpy(wav)[None], layers=layers)
        features.write(hidden[0].numpy().tobytes())
        lengths.write(f"{hidden.shape[1]}\\n")
"""


def write_clips(folder, minutes):
    """Clips of noise, and fairseq's manifest of them."""
    draw, lines, seconds = np.random.default_rng(0), [str(folder)], 0.0
    while seconds < 60 * minutes:
        length = float(np.interp(draw.uniform(0, 10), range(11), DECILES))
        seconds += length
        name = f"{len(lines)}.flac"
        noise = 0.02 * draw.standard_normal(int(length * RATE))
        soundfile.write(folder / name, noise, RATE, subtype="PCM_16")
        lines.append(f"{name}\t{len(noise)}")
    Path(folder, "clips.tsv").write_text("\n".join(lines), "utf-8")
    return folder / "clips.tsv"


def manifest_of(source, path):
    """fairseq's manifest of a folder of FLAC or WAV files."""
    files = sorted(file for kind in ("flac", "wav") for file in Path(source).rglob(f"*.{kind}"))
    lines = [f"{os.path.relpath(file, source)}\t{read_header(file).num_samples}" for file in files]
    path.write_text("\n".join([os.path.abspath(source), *lines]), "utf-8")
    return path


def write_run(name, folder):
    """The folder of a run with random weights."""
    brain, (loader, _) = open_recipe(name, 1000, str(folder))
    hparams_file, _, overrides = parse_arguments(recipe_arguments(name, 1000, str(folder)))
    write_hparams(folder / "run", hparams_file, overrides)
    brain.checkpointer.save_checkpoint()
    return folder / "run"


def run(*command):
    """Runs a program; returns its seconds, the peak MB of its largest process, and its errors."""
    with tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen([*map(str, command)], stderr=errors)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        errors.seek(0)
        text = errors.read()
    if status:
        raise RuntimeError(f"{command}: {text[-2000:]}")
    return seconds, used.ru_maxrss / 1024, text


def largest_batch(manifest, batch_seconds, path):
    """A manifest of the clips of the batch that has most with its padding."""
    root, *lines = manifest.read_text("utf-8").splitlines()
    clips = [Clip(line, "", int(line.split("\t")[1]), RATE) for line in lines]
    batches = make_plan(clips, batch_seconds, bytes_per_second=1).batches
    batch = max(batches, key=lambda batch: len(batch) * clips[batch[0]].seconds)
    path.write_text("\n".join([root, *(lines[number] for number in batch)]), "utf-8")
    return path


def measure(name, manifest, model, layer, folder, batches):
    """Rows of the table for a model."""
    minutes = sum(
        int(line.split("\t")[1]) for line in manifest.read_text("utf-8").splitlines()[1:]
    ) / (60 * RATE)
    rows, program = [], [sys.executable, "-m", "brainquant.cli", "encode", model]

    def add(what, seconds, peak, waiting=None):
        loop = rows[0]["seconds"] if rows else seconds
        rows.append({"program": what, "seconds": seconds, "times real time": 60 * minutes / seconds,
                     "times the loop": loop / seconds, "peak MB": peak,
                     "waiting for reading, %": waiting})  # fmt: skip

    loops = [("default", "the layer"), ("default", "all layers"), (1, "the layer")]
    for number, (threads, computes) in enumerate(loops):
        output = folder / f"loop_{number}.npy"
        loop = [sys.executable, "-c", LOOP, model, manifest, layer, output, threads, computes]
        seconds, peak, _ = run(*loop)
        add(f"loop, {computes}, threads: {threads}", seconds, peak)
    turns = [(20.0, 1), (20.0, None), *((batch, None) for batch in batches)]
    for number, (batch_seconds, processes) in enumerate(turns):
        options = ["--layers", layer, "--format", "npy", "--batch_seconds", batch_seconds]
        options += ["--num_processes", processes] if processes else []
        output = folder / f"{number}" / "f.npy"
        seconds, peak, errors = run(*program, manifest, "--output", output, *options)
        share = float(re.search(r"([\d.]+)% of the time waited", errors)[1])
        used = re.search(r"in each of (\d+) processes|$", errors)[1] or 1
        add(f"encode, batches of {batch_seconds:g} s, processes: {used}", seconds, peak, share)
    one = largest_batch(manifest, 20.0, folder / "one_batch.tsv")
    _, peak, _ = run(*program, one, "--output", folder / "one/f.npy", "--layers", layer,
                     "--format", "npy", "--num_processes", 1)  # fmt: skip
    rows.append({**dict.fromkeys(rows[0]), "program": "encode, one batch of 20 s", "peak MB": peak})
    print_table(f"{name}, {minutes:.0f} minutes of speech, layer {layer}", rows)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", help="a folder of 16 kHz FLAC or WAV files")
    parser.add_argument("--minutes", type=float, help="of speech, in place of each model's own")
    parser.add_argument("--only", default="", help="models that have this in their name")
    parser.add_argument("--batches", default="", help="further --batch_seconds, as 10,40")
    parser.add_argument("--output", help="a JSON file")
    options = parser.parse_args()
    batches = [float(text) for text in options.batches.split(",") if text]
    print(machine())
    tables = {}
    for name in [name for name in MODELS if options.only in name]:
        minutes, layer = MODELS[name]
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            if options.source:
                manifest = manifest_of(options.source, folder / "clips.tsv")
            else:
                manifest = write_clips(folder, options.minutes or minutes)
            row = f"ID,duration,wav\na,2,{folder}/a.flac"  # the recipe wants a manifest
            soundfile.write(folder / "a.flac", np.zeros(2 * RATE), RATE)
            (folder / "clips.csv").write_text(row, "utf-8")
            model = write_run(name, folder)
            tables[name] = measure(name, manifest, model, layer, folder, batches)
    if options.output:
        Path(options.output).write_text(
            json.dumps({"machine": machine(), "tables": tables}, indent=2), "utf-8"
        )


if __name__ == "__main__":
    main()
