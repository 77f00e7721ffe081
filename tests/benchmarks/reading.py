"""What a step waits for: audio from files and from shards, and padding.

> python tests/benchmarks/reading.py --train_csv t.csv --data_folder <corpus> --output reading.json

The small models of steps.py and the base model of BEST-RQ, trained on a corpus of one's own. From
one step to the next, the time from asking for a batch until it is there is waiting. Padding is
counted over an epoch's batches, for several `num_buckets`.
"""

import argparse
import json
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from measure import machine, print_table
from steps import Enough, open_recipe

from brainquant.data.batches import make_batches
from brainquant.data.manifests import load_dataset
from brainquant.data.shards import write_shards

MODELS = ("best_rq small, as in our recipe", "wav2vec2 small", "best_rq base")
BATCH_SECONDS = 40
WARMUP = 3  # steps that are not counted: workers start, and have a batch ready


def waiting(model, sources, num_workers, steps):
    """Share of the time of steps that is spent on waiting for their batches."""
    with tempfile.TemporaryDirectory() as folder:
        change = {
            **sources, "valid_csv": sources["train_csv"], "num_workers": num_workers,
            "batch_clips": "null", "batch_seconds": BATCH_SECONDS, "num_buckets": 8,
        }  # fmt: skip
        arguments = sum(([f"--{key}", value] for key, value in change.items()), [])
        brain, loaders = open_recipe(model, 10**6, folder, arguments)
        waited, began = [], None

        def watch(loader):
            nonlocal began
            batches = iter(loader)
            while True:
                asked = time.perf_counter()
                batch = next(batches)
                waited.append(time.perf_counter() - asked)
                if len(waited) == WARMUP:
                    began = time.perf_counter()
                if len(waited) == WARMUP + steps:
                    raise Enough
                yield batch

        brain.watch_training = watch
        with suppress(Enough):
            brain.fit(brain.hparams.epoch_counter, *loaders)
        return sum(waited[WARMUP:]) / (time.perf_counter() - began)


def padding(train_csv, data_folder):
    """A row for each number of buckets: share of what the batches hold that is no speech."""
    dataset = load_dataset(train_csv, data_folder, 1.0, 30.0, reader=None)
    rows = []
    for num_buckets in (4, 8, 16, 50):
        hparams = {"batch_clips": None, "seed": 0, "batch_seconds": BATCH_SECONDS}
        batches = make_batches(dataset, {**hparams, "num_buckets": num_buckets}, True)
        seconds = [
            [float(dataset.data[dataset.data_ids[i]]["duration"]) for i in batch]
            for batch in batches
        ]
        held = sum(max(batch) * len(batch) for batch in seconds)
        speech = sum(map(sum, seconds))
        rows.append({"num_buckets": num_buckets, "batches": len(seconds),
                     "padding, %": 100 * (1 - speech / held)})  # fmt: skip
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train_csv", required=True)
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--only", default="", help="models that have this in their name")
    parser.add_argument("--output", help="a JSON file")
    options = parser.parse_args()
    print(machine())
    padded, rows = padding(options.train_csv, options.data_folder), []
    print_table(f"Padding of batches of {BATCH_SECONDS} s", padded)
    with tempfile.TemporaryDirectory() as folder:
        shards = write_shards(options.train_csv, options.data_folder, folder)
        sources = {
            "files": {"train_csv": options.train_csv, "data_folder": options.data_folder},
            "shards": {"train_csv": shards, "data_folder": folder},
        }
        for model in [model for model in MODELS if options.only in model]:
            for name, source in sources.items():
                for num_workers in (0, 2):
                    share = waiting(model, source, num_workers, options.steps)
                    rows.append({"model": model, "from": name, "num_workers": num_workers,
                                 "waiting, %": 100 * share})  # fmt: skip
    print_table(f"Waiting for batches of {BATCH_SECONDS} s, share of the time", rows)
    if options.output:
        result = {"machine": machine(), "padding": padded, "waiting": rows}
        Path(options.output).write_text(json.dumps(result, indent=2), "utf-8")


if __name__ == "__main__":
    main()
