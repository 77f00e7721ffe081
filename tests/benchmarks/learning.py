"""What encoders learn: SpeechBrain's stock BEST-RQ and wav2vec 2.0 beside ours, on real speech.

> python tests/benchmarks/learning.py best_rq --seed 0 --train_csv t.csv --valid_csv v.csv \
    --data_folder <corpus> --seconds 12500 --probe digits digits.csv digit --output results/x \
    --method "kmeans=--make_quantiser '!include:../../../hparams/quantisers/kmeans.yaml'"

A seed trains the encoder of recipes/ToySpeech with stock's code, with ours as the recipe has it,
and with each `--method NAME=WORDS`: ours with these words on the command line. All see the same
batches, for so many seconds of speech, and then, but for stock, for the time that stock took. Each
is probed (speakers.py) at some of its steps, and the tables of all seeds whose files are in the
output folder are printed: the last step, and with `--curve FILE` accuracy over seconds, drawn, too.
In WORDS, `{NAME}` is the folder of an earlier method's run, such as a teacher's, and what that run
took is added.

Seeds may run side by side, on one thread each (OMP_NUM_THREADS=1): time is that of the processor,
so that it does not matter what else the machine does. What is finished is not done again.

To choose among settings of ours, name speakers to choose by with --tuning_speakers: the rest are
for what is chosen.

Stock (stock.py) has the masks, the optimiser and the form of warm-up of its recipes, and the
learning rate of the run.
"""

import argparse
import json
import os
import re
import shlex
import time
from itertools import count
from pathlib import Path

import torch
from learning_table import draw_curve, summarise
from measure import machine, print_table
from speakers import SpeakersProbe
from stock import STOCK, StockTraining
from tqdm import tqdm

from brainquant.data.batches import make_loaders
from brainquant.evaluation.frozen import untrained
from brainquant.recipe import build_brain
from brainquant.training.hparams import load_hparams, parse_arguments
from brainquant.training.resolve import write_hparams

HPARAMS = Path(__file__).resolve().parents[2] / "recipes/ToySpeech/hparams"
WARMUP_STEPS = 100
LR = {"best_rq": 0.0008, "wav2vec2": 0.0005}
BATCH_SECONDS = {"best_rq": 24, "wav2vec2": 12}
BUDGETS = ("same speech", "same time")  # as stock
OF_METHOD = re.compile(r"{(\w+)}")
REFERENCES = ("log-mel", "front end", "untrained")
POINTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)  # of the steps, where an encoder is probed


def train_stock(objective, brain, train_loader, steps, lr, after_step):
    """Trains the encoder of a Brain with stock's code, on the batches that ours would see."""
    training = StockTraining(objective, brain, lr, WARMUP_STEPS)
    clips, batches = train_loader.dataset, train_loader.batch_sampler
    progress, epoch = tqdm(total=steps, desc="stock"), 0
    while True:
        epoch += 1
        batches.set_epoch(epoch)
        for indices in batches:
            training.step([clips[index] for index in indices])
            after_step()
            progress.update()
            if progress.n == steps:
                progress.close()
                return


def open_recipe(options, folder, steps):
    """The Brain of the recipe, its loaders and its hyperparameters."""
    argv = [
        HPARAMS / f"{options.objective}.yaml", "--seed", options.seed, "--output_folder", folder,
        "--train_csv", options.train_csv, "--valid_csv", options.valid_csv, "--data_folder",
        options.data_folder, "--batch_seconds",
        BATCH_SECONDS[options.objective], "--max_seconds", 20, "--prepare",
        "null", "--evaluate", "null", "--number_of_epochs", 10**6, "--optimizer_step_limit", steps,
        "--warmup_steps", WARMUP_STEPS, "--lr", options.lr,
        "--hang_minutes", 0,
    ]  # fmt: skip
    hparams_file, run_opts, overrides = parse_arguments([*map(str, argv), *options.change])
    hparams = load_hparams(hparams_file, overrides)
    write_hparams(folder, hparams_file, overrides)  # so that the run can be a teacher
    brain = build_brain(hparams, run_opts)
    loaders = make_loaders(hparams, min_samples=brain.min_samples)
    hparams |= {"hparams_file": hparams_file, "overrides": overrides}
    return brain, loaders, hparams


def count_steps(train_loader, seconds):
    """Steps that see so many seconds of speech, over epochs."""
    durations = [float(clip["duration"]) for clip in train_loader.dataset.data.values()]
    steps_per_epoch = len(train_loader.batch_sampler)
    return round(seconds / sum(durations) * steps_per_epoch)


def file_of(options, method, budget=BUDGETS[0]):
    """The results of a method. Beside it, without the suffix, is the folder of its run."""
    name = f"{options.objective}_{method}_{budget}_{options.seed}.json".replace(" ", "_")
    return Path(options.output, name)


def result_of(options, method):
    """The results of a method that has trained on the same speech."""
    return json.loads(file_of(options, method).read_text("utf-8"))


def train(options, method, words, budget):
    """Trains and probes with one method; gives what is to be known of it."""
    folder = file_of(options, method, budget).with_suffix("")
    before = sum(result_of(options, used)["seconds"] for used in set(OF_METHOD.findall(words)))
    words = OF_METHOD.sub(lambda used: str(file_of(options, used[1]).with_suffix("")), words)
    options.change = [*options.changes, *shlex.split(words)]
    if budget == "same speech":
        _, (train_loader, _), _ = open_recipe(options, folder, 1)
        steps = count_steps(train_loader, options.seconds)
    else:
        steps = steps_in(result_of(options, "stock")["seconds"], result_of(options, method))
    brain, loaders, _ = open_recipe(options, folder, steps)
    encoder, points = brain.raw("encoder"), []
    after_step = keeping(points, encoder, steps)
    if method == "stock":
        train_stock(options.objective, brain, loaders[0], steps, options.lr, after_step)
    else:
        brain.on_optimizer_step = both(brain.on_optimizer_step, after_step)
        brain.fit(brain.hparams.epoch_counter, *loaders)
    first, *points = points
    for point in points:
        encoder.load_state_dict(point.pop("weights"))
        point["seconds"] += before
        if point is points[-1] or options.curve:
            point["probes"] = {
                n: p.of_encoder(encoder) for n, p in probes(options, encoder).items()
            }
    last = points[-1]
    result = {"method": method, "budget": budget, "seed": options.seed, "steps": steps}
    start = {"seconds": last["seconds"], "first step": before + first["seconds"]}
    abx = {}
    if options.abx:  # the weights are those of the last point
        abx = {
            n: probe.abx(encoder) for n, probe in probes(options, encoder).items() if probe.phones
        }
    return {**result, **start, "probes": last["probes"], "points": points, "abx": abx}


def keeping(points, encoder, steps):
    """A function to call after each step: at some it keeps the seconds and the weights."""
    marks = {1, *(max(2, round(steps * share)) for share in POINTS)}
    numbers, began = count(1), time.process_time()

    def keep():
        if (step := next(numbers)) in marks:
            seconds = time.process_time() - began
            weights = {name: x.clone() for name, x in encoder.state_dict().items()}
            points.append({"step": step, "seconds": seconds, "weights": weights})

    return keep


def both(first, second):
    """A function that calls two."""

    def call():
        first()
        second()

    return call


def steps_in(seconds, result):
    """Steps that a method makes in so many seconds, at the pace of an earlier run of its own."""
    start = result["first step"]
    return 1 + round((seconds - start) / (result["seconds"] - start) * (result["steps"] - 1))


def probes(options, encoder):
    """The probes of a run, by name."""
    return {
        name: SpeakersProbe(encoder, manifest, of, options.data_folder, options.seed)
        for name, manifest, of in options.probe
    }


def probe_references(options, folder):
    """Accuracies of log-mel and of encoders as they are before training, by name and probe."""
    options.change = options.changes
    brain, _, hparams = open_recipe(options, folder, 1)
    encoder = brain.raw("encoder")
    fresh = [untrained(encoder, hparams, seed) for seed in range(3)]
    found = {name: {} for name in REFERENCES}
    for name, probe in probes(options, encoder).items():
        found["log-mel"][name] = [probe.of_log_mel()]
        if hasattr(encoder, "steps"):
            found["front end"][name] = [probe.of_front_end(encoder) for encoder in fresh]
        found["untrained"][name] = [probe.of_encoder(encoder) for encoder in fresh]
    return found


def parse_options():
    """The options; those that are unknown are changes for all methods."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objective", choices=STOCK)
    parser.add_argument("--seed", type=int, required=True)
    for option in ("train_csv", "valid_csv", "data_folder", "output"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--seconds", type=float, required=True, help="of speech, over epochs")
    parser.add_argument(
        "--probe",
        action="append",
        nargs=3,
        metavar=("NAME", "CSV", "OF"),
        help="OF is a column of the manifest, or a folder of phone alignments",
    )
    parser.add_argument("--method", action="append", default=[], metavar="NAME=WORDS")
    parser.add_argument("--budgets", nargs="+", choices=BUDGETS, default=BUDGETS)
    parser.add_argument("--without_stock", action="store_true", help="and so on the same speech")
    parser.add_argument("--tuning_speakers", nargs="+", default=[])
    parser.add_argument("--abx", action="store_true", help="ABX errors of phones as well")
    parser.add_argument("--curve", metavar="PNG", help="probe at several steps, and draw it")
    parser.add_argument(
        "--lr", type=float, help="of all methods; by default as in docs/explanation/learning.md"
    )
    options, options.changes = parser.parse_known_args()
    options.lr = options.lr or LR[options.objective]
    return options


def main():
    options = parse_options()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    output = Path(options.output)
    methods = {"default": "", **dict(method.split("=", 1) for method in options.method)}
    runs = [(name, words, budget) for budget in options.budgets for name, words in methods.items()]
    if options.without_stock:
        runs = [run for run in runs if run[2] == "same speech"]
    else:
        runs.insert(0, ("stock", "", "same speech"))
    for name, words, budget in runs:
        path = file_of(options, name, budget)
        if not path.exists():
            path.write_text(json.dumps(train(options, name, words, budget)), "utf-8")
    path = output / f"references_{options.objective}.json"
    if not path.exists():
        path.write_text(json.dumps(probe_references(options, output / "references")), "utf-8")
    references = json.loads(path.read_text("utf-8"))
    print(machine())
    results = [
        json.loads(p.read_text()) for p in sorted(output.glob(f"{options.objective}_*.json"))
    ]
    print_table(
        f"{options.objective}: accuracy in %, mean over speakers, spread over seeds",
        summarise(results, references, BUDGETS, options.tuning_speakers),
    )
    if options.curve:
        draw_curve(results, options.curve)


if __name__ == "__main__":
    main()
