"""What the label-free quality costs: the share of a training that its measurements take.

> python tests/benchmarks/quality.py recipes/ToySpeech/hparams/best_rq.yaml --steps 40 \
    --data_folder data/ToySpeech

Trains for some steps, then measures a few times as a validation does. A run measures once in so
many steps, so the share is that of one measurement in the seconds of these steps. Further options
are those of the recipe. A validation set that is shorter than `quality_minutes` is measured whole.
"""

import argparse
import os
import statistics
import tempfile
import time

from measure import machine, print_table

from brainquant.recipe import build_brain, build_loaders
from brainquant.training.hparams import load_hparams, parse_arguments


def timed(function, seconds):
    """The function; each call appends its seconds to a list."""

    def call(*arguments, **options):
        began = time.perf_counter()
        result = function(*arguments, **options)
        seconds.append(time.perf_counter() - began)
        return result

    return call


def measure(recipe, options, steps, repeats):
    """The row of a recipe."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [recipe, *options, "--output_folder", folder, "--optimizer_step_limit", str(steps)]
        argv += ["--warmup_steps", "1", "--train_loggers", "[]", "--noprogressbar"]
        hparams_file, run_opts, overrides = parse_arguments(argv)
        hparams = load_hparams(hparams_file, overrides)
        if hparams["prepare"]:
            hparams["prepare"]()
        brain = build_brain(hparams, run_opts)
        of_batches, of_measurements = [], []
        brain.fit_batch = timed(brain.fit_batch, of_batches)
        loaders = build_loaders(brain, hparams)
        brain.fit(hparams["epoch_counter"], *loaders)
        call = timed(brain.quality.measure, of_measurements)
        for _ in range(repeats):
            call(brain.raw("encoder"), loaders[1].dataset, steps)
    of_step = statistics.median(of_batches) * brain.grad_accumulation_factor
    of_measurement = statistics.median(of_measurements)
    layers = len(brain.raw("encoder").layers)
    measured = sum(len(clip) for clip, _ in brain.quality.clips) / brain.hparams.sample_rate
    return {
        "recipe": os.path.splitext(os.path.relpath(recipe))[0],
        "layers": layers,
        "speech measured, s": f"{measured:.0f}",
        "a measurement, s": f"{of_measurement:.2f}",
        "a step, s": f"{of_step:.3f}",
        "steps between": brain.quality.interval,
        "share": f"{of_measurement / (brain.quality.interval * of_step):.2%}",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    arguments, options = parser.parse_known_args()
    rows = [
        measure(recipe, options, arguments.steps, arguments.repeats) for recipe in arguments.recipes
    ]
    print_table(machine(), rows)


if __name__ == "__main__":
    main()
