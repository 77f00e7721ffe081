"""What encoders learn: SpeechBrain's stock BEST-RQ and wav2vec 2.0 beside ours, on real speech.

> python tests/benchmarks/learning.py best_rq --seed 0 --train_csv t.csv --valid_csv v.csv \
    --data_folder <corpus> --seconds 12500 --probe digits a.csv b.csv c.csv digit --output results/x

A seed trains the encoder of recipes/ToySpeech three times: with stock's code, with ours for the
same seconds of speech in the same batches, and with ours for the time that stock took. Each is
probed, and the table of all seeds whose files are in the output folder is printed. Seeds may run
side by side, on one thread each (OMP_NUM_THREADS=1): time is that of the processor, so that it does
not matter what else the machine does. What is finished is not done again.

Stock (stock.py) has the masks, the optimiser and the form of warm-up of its recipes, and the
learning rate of the run.
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch
from measure import machine, print_table
from stock import STOCK, StockTraining
from tqdm import tqdm

from brainquant.data.batches import make_loaders
from brainquant.evaluation import probe
from brainquant.training.hparams import load_hparams, parse_arguments

HPARAMS = Path(__file__).resolve().parents[2] / "recipes/ToySpeech/hparams"
WARMUP_STEPS = 100
LR = {"best_rq": 0.0008, "wav2vec2": 0.0005}
BATCH_SECONDS = {"best_rq": 24, "wav2vec2": 12}
METHODS = ("stock", "same speech", "same time")


def train_stock(objective, brain, train_loader, steps):
    """Trains the encoder of a Brain with stock's code, on the batches that ours would see."""
    training = StockTraining(objective, brain, LR[objective], WARMUP_STEPS)
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
    """The Brain of the recipe, its loaders, its YAML and what is changed in it."""
    argv = [
        HPARAMS / f"{options.objective}.yaml", "--seed", options.seed, "--output_folder", folder,
        "--train_csv", options.train_csv, "--valid_csv", options.valid_csv, "--data_folder",
        options.data_folder, "--batch_seconds",
        BATCH_SECONDS[options.objective], "--max_seconds", 20, "--prepare",
        "null", "--evaluate", "null", "--number_of_epochs", 10**6, "--optimizer_step_limit", steps,
        "--warmup_steps", WARMUP_STEPS, "--lr", LR[options.objective],
        "--hang_minutes", 0,
    ]  # fmt: skip
    hparams_file, run_opts, overrides = parse_arguments([*map(str, argv), *options.change])
    hparams = load_hparams(hparams_file, overrides)
    os.makedirs(folder, exist_ok=True)
    brain = hparams["brain_class"](
        hparams["modules"], hparams["optimizer"], hparams, run_opts, hparams["checkpointer"]
    )
    loaders = make_loaders(hparams, min_samples=brain.min_samples)
    return brain, loaders, hparams_file, overrides


def count_steps(train_loader, seconds):
    """Steps that see so many seconds of speech, over epochs."""
    durations = [float(clip["duration"]) for clip in train_loader.dataset.data.values()]
    steps_per_epoch = len(train_loader.batch_sampler)
    return round(seconds / sum(durations) * steps_per_epoch)


def train(options, method, folder):
    """Trains and probes with one method; gives what is to be known of it."""
    steps = options.steps.get(method)
    if steps is None:
        _, (train_loader, _), *_ = open_recipe(options, folder, 1)
        steps = count_steps(train_loader, options.seconds)
    brain, loaders, hparams_file, overrides = open_recipe(options, folder, steps)
    began = time.process_time()
    if method == "stock":
        train_stock(options.objective, brain, loaders[0], steps)
    else:
        brain.fit(brain.hparams.epoch_counter, *loaders)
    taken = time.process_time() - began
    result = {"method": method, "seed": options.seed, "steps": steps, "seconds": taken}
    for name, train_csv, valid_csv, test_csv, of in options.probe:
        labels = {"alignments": of} if os.path.isdir(of) else {"label": of}
        table = probe(
            brain, hparams_file, overrides, train=train_csv, valid=valid_csv, test=test_csv,
            data_folder=options.data_folder, num_seeds=1, name=name, **labels,
        )  # fmt: skip
        result[name] = table["accuracies"]
    return result


def summarise(results, probes):
    """A row for each method and probe: accuracy of the chosen layer, the last, and of each."""

    def shown(values):
        values = 100 * torch.tensor(values)
        return f"{values.mean():.1f} +- {values.std(correction=0):.1f}"

    rows = []
    for name in probes:
        sources = [("log-mel", "stock", "log-mel"), ("untrained", "stock", "untrained encoder")]
        sources += [(method, method, "pretrained encoder") for method in METHODS]
        for label, method, of in sources:
            found = [r for r in results if r["method"] == method and name in r]
            if not found:
                continue
            layers = torch.tensor([r[name][of]["layers"][0] for r in found])
            rows.append({
                "probe": name,
                "encoder": label,
                "steps": found[0]["steps"] if of == "pretrained encoder" else None,
                "seconds": sum(r["seconds"] for r in found) / len(found)
                if of == "pretrained encoder"
                else None,
                "chosen layer": shown([r[name][of]["mean"] for r in found]),
                "last layer": shown(layers[:, -1].tolist()),
                "by layer": " ".join(f"{100 * x:.1f}" for x in layers.mean(0)),
                "seeds": len(found),
            })  # fmt: skip
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
        nargs=5,
        metavar=("NAME", "TRAIN", "VALID", "TEST", "OF"),
        help="OF is a column of the manifests, or a folder of phone alignments",
    )
    options, options.change = parser.parse_known_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    output, options.steps = Path(options.output), {}
    for method in METHODS:
        folder = output / f"{options.objective}_{method.replace(' ', '_')}_{options.seed}"
        path = folder.with_suffix(".json")
        if not path.exists():
            result = train(options, method, folder)
            path.write_text(json.dumps(result), "utf-8")
        result = json.loads(path.read_text("utf-8"))
        if method == "same speech":
            stock = json.loads(Path(str(path).replace("same_speech", "stock")).read_text("utf-8"))
            pace = stock["seconds"] / result["seconds"]
            options.steps["same time"] = round(result["steps"] * pace)
    print(machine())
    results = [
        json.loads(p.read_text()) for p in sorted(output.glob(f"{options.objective}_*.json"))
    ]
    print_table(f"{options.objective}: accuracy in %, mean and spread over seeds", summarise(
        results, [name for name, *_ in options.probe]
    ))  # fmt: skip


if __name__ == "__main__":
    main()
