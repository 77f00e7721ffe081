"""What encoders learn: SpeechBrain's stock BEST-RQ and wav2vec 2.0 beside ours, on real speech.

> python tests/benchmarks/learning.py best_rq --seed 0 --train_csv t.csv --valid_csv v.csv \
    --data_folder <corpus> --seconds 12500 --probe digits digits.csv digit --output results/x

A seed trains the encoder of recipes/ToySpeech three times: with stock's code, with ours for the
same seconds of speech in the same batches, and with ours for the time that stock took. Each is
probed (speakers.py), and the table of all seeds whose files are in the output folder is printed.
Seeds may run side by side, on one thread each (OMP_NUM_THREADS=1): time is that of the processor,
so that it does not matter what else the machine does. What is finished is not done again.

To choose among settings of ours, give each a folder, `--methods "same speech"`, and speakers to
choose by with --tuning_speakers: the rest are for what is chosen.

Stock (stock.py) has the masks, the optimiser and the form of warm-up of its recipes, and the
learning rate of the run.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from measure import machine, print_table
from speakers import SpeakersProbe
from stock import STOCK, StockTraining
from tqdm import tqdm

from brainquant.data.batches import make_loaders
from brainquant.evaluation.frozen import untrained
from brainquant.training.hparams import load_hparams, parse_arguments

HPARAMS = Path(__file__).resolve().parents[2] / "recipes/ToySpeech/hparams"
WARMUP_STEPS = 100
LR = {"best_rq": 0.0008, "wav2vec2": 0.0005}
BATCH_SECONDS = {"best_rq": 24, "wav2vec2": 12}
METHODS = ("stock", "same speech", "same time")
REFERENCES = ("log-mel", "untrained")


def train_stock(objective, brain, train_loader, steps, lr):
    """Trains the encoder of a Brain with stock's code, on the batches that ours would see."""
    training = StockTraining(objective, brain, lr, WARMUP_STEPS)
    clips, batches = train_loader.dataset, train_loader.batch_sampler
    progress, epoch = tqdm(total=steps, desc="stock"), 0
    while True:
        epoch += 1
        batches.set_epoch(epoch)
        for indices in batches:
            training.step([clips[index] for index in indices])
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
    os.makedirs(folder, exist_ok=True)
    brain = hparams["brain_class"](
        hparams["modules"], hparams["optimizer"], hparams, run_opts, hparams["checkpointer"]
    )
    loaders = make_loaders(hparams, min_samples=brain.min_samples)
    hparams |= {"hparams_file": hparams_file, "overrides": overrides}
    return brain, loaders, hparams


def count_steps(train_loader, seconds):
    """Steps that see so many seconds of speech, over epochs."""
    durations = [float(clip["duration"]) for clip in train_loader.dataset.data.values()]
    steps_per_epoch = len(train_loader.batch_sampler)
    return round(seconds / sum(durations) * steps_per_epoch)


def train(options, method, folder):
    """Trains and probes with one method; gives what is to be known of it."""
    steps = options.steps.get(method)
    if steps is None:
        _, (train_loader, _), _ = open_recipe(options, folder, 1)
        steps = count_steps(train_loader, options.seconds)
    brain, loaders, _ = open_recipe(options, folder, steps)
    began = time.process_time()
    if method == "stock":
        train_stock(options.objective, brain, loaders[0], steps, options.lr)
    else:
        brain.fit(brain.hparams.epoch_counter, *loaders)
    taken = time.process_time() - began
    result = {"method": method, "seed": options.seed, "steps": steps, "seconds": taken}
    encoder = brain.raw("encoder")
    result["probes"] = {n: p.of_encoder(encoder) for n, p in probes(options, encoder).items()}
    return result


def probes(options, encoder):
    """The probes of a run, by name."""
    return {
        name: SpeakersProbe(encoder, manifest, of, options.data_folder, options.seed)
        for name, manifest, of in options.probe
    }


def probe_references(options, folder):
    """Accuracies of log-mel and of encoders as they are before training, by name and probe."""
    brain, _, hparams = open_recipe(options, folder, 1)
    encoder = brain.raw("encoder")
    found = {name: {} for name in REFERENCES}
    for name, probe in probes(options, encoder).items():
        found["log-mel"][name] = [probe.of_log_mel()]
        found["untrained"][name] = [
            probe.of_encoder(untrained(encoder, hparams, seed)) for seed in range(3)
        ]
    return found


def accuracies(by_speaker, layer=None):
    """Test accuracy of each speaker: of a layer, or else of the one that another speaker chose."""
    layers = {speaker: np.array(pairs) for speaker, pairs in by_speaker.items()}
    return {s: x[x[:, 0].argmax() if layer is None else layer, 1] for s, x in layers.items()}


def summarise(results, references, tuning_speakers):
    """A row for each encoder and probe: means over speakers, and their spread over seeds."""

    def shown(by_seed, tuning=False):
        means = [
            np.mean([x for speaker, x in of.items() if (speaker in tuning_speakers) == tuning])
            for of in by_seed
        ]
        return f"{100 * np.mean(means):.1f} +- {100 * np.std(means):.1f}"

    def row(probe, encoder, by_seed, **columns):
        chosen = [accuracies(x) for x in by_seed]
        num_layers = len(next(iter(by_seed[0].values())))
        by_layer = [[accuracies(x, layer) for x in by_seed] for layer in range(num_layers)]
        return {
            "probe": probe,
            "encoder": encoder,
            **({"tuning speakers": shown(chosen, tuning=True)} if tuning_speakers else {}),
            "chosen layer": shown(chosen),
            "last layer": shown(by_layer[-1]),
            "by layer": " ".join(shown(x).split()[0] for x in by_layer),
            "seeds": len(by_seed),
            **columns,
        }

    rows = []
    for probe in references["log-mel"]:
        rows += [row(probe, name, references[name][probe]) for name in REFERENCES]
        for method in METHODS:
            if found := [r for r in results if r["method"] == method]:
                columns = {key: np.mean([r[key] for r in found]) for key in ("steps", "seconds")}
                rows.append(row(probe, method, [r["probes"][probe] for r in found], **columns))
    return rows


def main():
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
    parser.add_argument("--tuning_speakers", nargs="+", default=[])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument(
        "--lr", type=float, help="of all methods; by default as in docs/explanation/learning.md"
    )
    options, options.change = parser.parse_known_args()
    if "same time" in options.methods and set(options.methods) != set(METHODS):
        parser.error(
            f'the pace of "same time" is that of the others; give --methods all of {METHODS}'
        )
    options.lr = options.lr or LR[options.objective]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    output, options.steps, done = Path(options.output), {}, {}
    for method in [m for m in METHODS if m in options.methods]:
        folder = output / f"{options.objective}_{method.replace(' ', '_')}_{options.seed}"
        path = folder.with_suffix(".json")
        if not path.exists():
            result = train(options, method, folder)
            path.write_text(json.dumps(result), "utf-8")
        done[method] = json.loads(path.read_text("utf-8"))
        if {"stock", "same speech"} <= done.keys():
            pace = done["stock"]["seconds"] / done["same speech"]["seconds"]
            options.steps["same time"] = round(done["same speech"]["steps"] * pace)
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
        summarise(results, references, options.tuning_speakers),
    )


if __name__ == "__main__":
    main()
