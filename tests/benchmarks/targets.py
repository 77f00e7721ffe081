"""The step of BEST-RQ with other targets: labels of files, and a teacher at some of its layers.

> python tests/benchmarks/targets.py --output targets.json

One Brain, whose quantiser changes from step to step, so what slows the machine slows all. The
teacher has the architecture of the encoder that is trained, and all targets have as many codes. On
8 clips of 5 s of noise. The goals: labels at most 1, a teacher at layer K of L at most
1 + 0.5 K / L. About 3 minutes on a core; `--model` takes another line of steps.py, and
`--precision bf16` and other keys of the YAML may follow.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import machine, print_table
from steps import CLIPS, SECONDS, open_recipe, recipe_arguments, write_corpus

from brainquant.targets import FileCodes, TeacherCodes
from brainquant.training.hparams import parse_arguments
from brainquant.training.resolve import write_hparams

CODES = 1024
WARMUP = 2  # steps of each that are not counted


def make_teacher(name, folder, change):
    """The folder of a run of one step."""
    hparams_file, _, overrides = parse_arguments(recipe_arguments(name, 1, folder, change))
    brain, loaders = open_recipe(name, 1, folder, change)
    write_hparams(brain.hparams.output_folder, hparams_file, overrides)
    brain.run_log.draw_report = lambda *_: None
    brain.fit(brain.hparams.epoch_counter, *loaders)
    return brain.hparams.output_folder


def make_targets(brain, clips, teacher, folder):
    """Quantisers of all kinds, by name; that of the recipe comes first."""
    encoder = brain.raw("encoder")
    frames, depth = encoder.count_frames(int(SECONDS * 16000)), len(encoder.layers)
    labels = {str(clip): np.random.randint(0, CODES, frames) for clip in range(clips)}
    np.savez(f"{folder}/labels.npz", **labels)
    rate = encoder.sample_rate / encoder.stride
    targets = {
        "BEST-RQ": brain.quantiser,
        "labels": FileCodes(1, f"{folder}/labels.npz", codebook_size=CODES, frame_rate=rate),
    }
    for layer in sorted({1, depth // 2, depth}):
        targets[f"teacher, layer {layer} of {depth}"] = TeacherCodes(
            1, teacher, layer, centroids=torch.randn(CODES, encoder.dim)
        )
    return {name: target.to(brain.device) for name, target in targets.items()}


def time_steps(name, steps, change):
    """Median seconds of the steps with each kind of targets."""
    change = ["--cb_vocab", CODES, "--valid_csv", "null", *change]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as elsewhere:
        write_corpus(elsewhere, CLIPS)
        teacher = make_teacher(name, elsewhere, change)
        clips = CLIPS * 5 * (steps + WARMUP)  # at most five kinds, in one epoch
        write_corpus(folder, clips)
        brain, loaders = open_recipe(name, clips // CLIPS, folder, change)
        targets = make_targets(brain, clips, teacher, folder)
        seconds = {kind: [] for kind in targets}

        def step(batch, fit_batch=brain.fit_batch):
            kind = list(targets)[brain.optimizer_step % len(targets)]
            brain.modules["quantiser"] = targets[kind]
            synchronise()
            began = time.perf_counter()
            loss = fit_batch(batch)
            synchronise()
            seconds[kind].append(time.perf_counter() - began)
            return loss

        brain.fit_batch = step
        brain.fit(brain.hparams.epoch_counter, *loaders)
    return {kind: statistics.median(values[WARMUP:]) for kind, values in seconds.items()}


def synchronise():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", help="a JSON file")
    parser.add_argument("--model", default="best_rq small, as in our recipe")
    parser.add_argument("--steps", type=int, default=10)
    options, change = parser.parse_known_args()
    print(machine())
    seconds = time_steps(options.model, options.steps, change)
    rows = [
        {"targets": kind, "seconds per step": taken, "times BEST-RQ": taken / seconds["BEST-RQ"]}
        for kind, taken in seconds.items()
    ]
    if options.output:
        result = {"machine": machine(), "model": options.model, "steps": rows}
        Path(options.output).write_text(json.dumps(result, indent=2), "utf-8")
    print_table("Steps of 8 clips of 5 s: medians", rows)


if __name__ == "__main__":
    main()
