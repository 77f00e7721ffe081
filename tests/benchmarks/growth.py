"""How our step grows: with clip length, batch, codebooks and ranks; and what it is made of.

> python tests/benchmarks/growth.py --output growth.json --figure docs/explanation/growth.png

On noise, as steps.py, whose small models these are. Time is the median of steps; memory is what
they add at their peak, in a process of its own for each row. Ranks are processes of this machine
that talk through gloo. Then what docs/explanation/scaling.md counts with: parameters and operations
of the models of recipes/LibriSpeech, and how fast audio is read. About 20 minutes on 2 cores.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import matplotlib
from measure import extra_mb, in_process, machine, print_table
from steps import RECIPES, Enough, open_recipe, recipe_arguments, write_corpus
from torch.utils.flop_counter import FlopCounterMode

from brainquant.data.audio import AudioReader

BEST_RQ, WAV2VEC2 = "best_rq small", "wav2vec2 small"
LARGE = ["--d_model", 848, "--num_layers", 24]  # the large model of arXiv 2405.04296
LARGE_WAV2VEC2 = ["--d_model", 1024, "--num_layers", 24, "--d_ffn", 4096]
LIBRISPEECH = {
    "best_rq base": ("best_rq base", []),
    "best_rq large": ("best_rq base", LARGE),
    "wav2vec2 base": ("wav2vec2 base", []),
    "wav2vec2 large": ("wav2vec2 base", LARGE_WAV2VEC2),
}


def measure_steps(name, clips, seconds, change):
    """Median seconds of a step, and megabytes that steps add at their peak; in this process."""
    taken = []
    if change and change[0] == "--codebooks":
        multi = "!include:../../../hparams/quantisers/random_projection_multi.yaml"
        change = ["--make_quantiser", f"{multi} {{num_codebooks: {change[1]}}}"]
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(folder, 2 * clips, seconds)
        brain, loaders = open_recipe(name, 7, folder, ["--batch_clips", clips, *change])

        def timed(batch, fit_batch=brain.fit_batch):
            if brain.optimizer_step == 6:
                raise Enough
            began = time.perf_counter()
            loss = fit_batch(batch)
            taken.append(time.perf_counter() - began)
            return loss

        def run():
            with suppress(Enough):
                brain.fit(brain.hparams.epoch_counter, *loaders)

        brain.fit_batch = timed
        megabytes = extra_mb(run)
    return statistics.median(taken[1:]), megabytes


def grow():
    """A row for each size: model, what grows, its size, seconds and megabytes."""
    sizes = [
        (name, "clip, s", 8, length, [])
        for name in (BEST_RQ, WAV2VEC2)
        for length in (2.5, 5, 10, 20)
    ]
    sizes += [(name, "clips", n, 5, []) for name in (BEST_RQ, WAV2VEC2) for n in (2, 4, 8, 16, 32)]
    sizes += [(BEST_RQ, "codebooks", 8, 5, ["--codebooks", n]) for n in (1, 2, 4, 8)]
    rows = []
    for name, what, clips, length, change in sizes:
        seconds, megabytes = in_process(__file__, "--steps_of", name, clips, length, *change)
        size = {"clip, s": length, "clips": clips}.get(what) or change[1]
        rows.append({
            "model": name, "grows": what, "size": size, "seconds per step": seconds,
            "speech per second": clips * length / seconds, "peak MB": megabytes,
        })  # fmt: skip
    return rows


def grow_ranks():
    """Seconds of speech per second of 1, 2 and 4 processes with 8 clips of 5 s each."""
    rows = []
    for ranks in (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder:
            write_corpus(folder, 64, 5.0)
            arguments = recipe_arguments(BEST_RQ, 16, folder, ["--log_interval", 8])
            command = [
                sys.executable, "-m", "torch.distributed.run", "--standalone",
                f"--nproc-per-node={ranks}", RECIPES / "ToySpeech/train.py", *arguments,
            ]  # fmt: skip
            threads = max(1, os.cpu_count() // ranks)
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            subprocess.run([*map(str, command)], check=True, capture_output=True, env=environment)
            lines = Path(folder, "run/metrics.jsonl").read_text("utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        last = [r for r in records if r["stage"] == "train" and r["span"] == "interval"][-1]
        rows.append({"ranks": ranks, "threads of each": threads,
                     "speech per second": last["speech_per_second"]})  # fmt: skip
    return rows


def count(label):
    """Millions of parameters, and GFLOP per second of speech, forward and backward."""
    name, change = LIBRISPEECH[label]
    clips, seconds, counter = 2, 15.0, FlopCounterMode(display=False)
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(folder, clips, seconds)
        brain, loaders = open_recipe(name, 1, folder, ["--batch_clips", clips, *change])

        def counted(batch, fit_batch=brain.fit_batch):
            with counter:
                fit_batch(batch)
            raise Enough

        brain.fit_batch = counted
        with suppress(Enough):
            brain.fit(brain.hparams.epoch_counter, *loaders)
    trained = sum(p.numel() for p in brain.modules.parameters() if p.requires_grad)
    return trained / 1e6, counter.get_total_flops() / (clips * seconds) / 1e9


def read_speed():
    """Seconds of FLAC that one process reads in a second."""
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(folder, 16, 15.0)
        reader = AudioReader(16000)
        paths = [os.path.join(folder, f"{clip}.flac") for clip in range(16)]
        reader(paths[0], 15.0)
        began = time.perf_counter()
        for path in paths:
            reader(path, 15.0)
        return 16 * 15.0 / (time.perf_counter() - began)


def draw(rows, path):
    """Time and memory over each size."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = list(dict.fromkeys(row["grows"] for row in rows))
    figure, axes = pyplot.subplots(
        2, len(kinds), figsize=(9, 5), sharey="row", layout="constrained"
    )
    for column, kind in enumerate(kinds):
        for name in (BEST_RQ, WAV2VEC2):
            found = [r for r in rows if r["grows"] == kind and r["model"] == name]
            for axis, key in zip(axes[:, column], ("seconds per step", "peak MB")):
                if found:
                    sizes = [r["size"] for r in found]
                    axis.loglog(sizes, [r[key] for r in found], "o-", base=2, label=name)
                axis.set_xticks(sizes, sizes) if found else None
                axis.yaxis.set_major_formatter("{x:g}")
        axes[1, column].set_xlabel(kind)
    axes[0, 0].set_ylabel("seconds per step")
    axes[1, 0].set_ylabel("MB at the peak")
    axes[0, 0].legend()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", help="a JSON file")
    parser.add_argument("--figure", help="a PNG file")
    parser.add_argument("--steps_of", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--count", help=argparse.SUPPRESS)
    options, change = parser.parse_known_args()
    if options.steps_of:
        name, clips, length = options.steps_of
        print(json.dumps(measure_steps(name, int(clips), float(length), change)))
        return
    if options.count:
        print(json.dumps(count(options.count)))
        return
    print(machine())
    rows = grow()
    print_table("Growth", rows)
    if options.figure:
        draw(rows, options.figure)
    ranks = grow_ranks()
    print_table("Ranks of one machine", ranks)
    models = []
    for label in LIBRISPEECH:
        parameters, operations = in_process(__file__, "--count", label)
        models.append({"model": label, "parameters, million": parameters,
                       "GFLOP per second of speech": operations})  # fmt: skip
    print_table("Models of recipes/LibriSpeech, forward and backward", models)
    speed = read_speed()
    print(f"\nSeconds of FLAC that a process reads in a second: {speed:,.0f}")
    if options.output:
        result = {"machine": machine(), "growth": rows, "ranks": ranks, "models": models,
                  "reading": speed}  # fmt: skip
        Path(options.output).write_text(json.dumps(result, indent=2), "utf-8")


if __name__ == "__main__":
    main()
