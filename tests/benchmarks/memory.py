"""The memory that a plan predicts, beside the peak of the run itself.

> python tests/benchmarks/memory.py --output memory.json

Each setting is planned in 60 seconds and then trained for an epoch, each in a process of its own
(on a CPU, so Linux only). On a busy machine a trial makes fewer steps: give it more `--seconds`.
The peak of a run is what the system says of its process, libraries included. Without
`--data_folder` the corpus is ToySpeech, which needs espeak-ng; otherwise a folder with train.csv
and valid.csv. About 40 minutes on 2 cores; `--only wav2vec2` runs what has that in its name.
"""

import argparse
import csv
import json
import sys
import tempfile
import time
from pathlib import Path

from measure import in_process, machine, peak_mb

from brainquant.planning.largest_batch import batch_shapes
from brainquant.planning.memory_model import fit_memory
from brainquant.planning.trial import run_trial
from brainquant.recipe import main, open_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes/ToySpeech/hparams"
MB = 2**20
WIDE = ["--d_model", 384, "--num_layers", 8]
BF16 = ["--precision", "bf16"]
# Recipe, minutes of the corpus, options.
SETTINGS = {
    "best_rq, 50 s": ("best_rq", 30, ["--batch_seconds", 50]),
    "best_rq, 400 s": ("best_rq", 30, ["--batch_seconds", 400, "--num_buckets", 50]),
    "best_rq wide, 200 s": ("best_rq", 15, [*WIDE, "--batch_seconds", 200, "--num_buckets", 50]),
    "best_rq wide, 200 s, checkpointing": (
        "best_rq", 15,
        [*WIDE, "--batch_seconds", 200, "--num_buckets", 50, "--activation_checkpointing", True],
    ),
    "best_rq wide, 200 s, bf16": (
        "best_rq", 15, [*WIDE, "--batch_seconds", 200, "--num_buckets", 50, *BF16],
    ),
    "best_rq wide, 100 s, 4 accumulated": (
        "best_rq", 15, [*WIDE, "--batch_seconds", 100, "--grad_accumulation_factor", 4],
    ),
    "wav2vec2, 50 s": ("wav2vec2", 30, ["--batch_seconds", 50]),
    "wav2vec2, 300 s": ("wav2vec2", 30, ["--batch_seconds", 300, "--num_buckets", 50]),
    "wav2vec2 wide, 100 s": ("wav2vec2", 15, [*WIDE, "--batch_seconds", 100, "--num_buckets", 50]),
    "online_codebooks, 50 s": ("online_codebooks", 30, ["--batch_seconds", 50]),
    "online_codebooks, 400 s": (
        "online_codebooks", 30, ["--batch_seconds", 400, "--num_buckets", 50],
    ),
    "online_codebooks wide, 200 s": (
        "online_codebooks", 15, [*WIDE, "--batch_seconds", 200, "--num_buckets", 50],
    ),
}  # fmt: skip


def write_part(folder, minutes, path):
    """A manifest of the first minutes of a corpus, with its longest clip."""
    with open(Path(folder, "train.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    longest = max(rows, key=lambda row: float(row["duration"]))
    rows = [longest, *(row for row in rows if row is not longest)]
    seconds, part = 0.0, []
    for row in rows:
        if seconds < 60 * minutes:
            part.append(row)
            seconds += float(row["duration"])
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, part[0])
        table.writeheader()
        table.writerows(part)


def command_line(folder, name, corpus):
    """What train.py takes for a setting."""
    recipe, minutes, options = SETTINGS[name]
    manifest = Path(folder, "train.csv")
    write_part(corpus, minutes, manifest)
    return [
        str(RECIPES / f"{recipe}.yaml"), "--data_folder", corpus, "--train_csv", str(manifest),
        "--prepare", "null", "--evaluate", "null", "--noprogressbar", "--device", "cpu",
        "--number_of_epochs", "1", *map(str, options),
    ]  # fmt: skip


def measure_run(name, corpus):
    """Trains a setting and says the peak of this process."""
    with tempfile.TemporaryDirectory() as folder:
        main([*command_line(folder, name, corpus), "--output_folder", f"{folder}/run"])
    return {"measured_mb": peak_mb()}


def plan_run(name, corpus, seconds):
    """The largest batch of a setting and the memory that is predicted for it."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [*command_line(folder, name, corpus), "--output_folder", f"{folder}/plan"]
        began = time.perf_counter()
        trial = run_trial(argv, seconds=seconds)
        took = time.perf_counter() - began
        model = fit_memory(trial)
        brain, loader = open_recipe(argv)
        hparams = vars(brain.hparams)
        largest = max(batch_shapes(loader.dataset.dataset, hparams), key=model.load)
    return {
        "clips": largest.clips,
        "padded_seconds": largest.padded_seconds,
        "predicted_mb": max(model.predict(largest), trial.before_steps_bytes) / MB,
        "floor_mb": trial.floor_bytes / MB,
        "trial_seconds": took,
        "trial": trial.to_json(),
    }


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_folder", help="of a corpus with train.csv and valid.csv")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each trial")
    parser.add_argument("--only", default="", help="settings with this in their name")
    parser.add_argument("--output", help="where the numbers are written as JSON")
    parser.add_argument("--run", help=argparse.SUPPRESS)  # a process of its own
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_all(options, corpus):
    rows = {}
    print(f"{'setting':36}{'batch':>7}{'floor':>7}{'predicted':>11}{'measured':>10}{'error':>8}")
    for name in SETTINGS:
        if options.only not in name:
            continue
        common = ("--data_folder", corpus, "--seconds", options.seconds)
        row = in_process(__file__, "--plan", name, *common)
        row |= in_process(__file__, "--run", name, *common)
        row["error"] = row["predicted_mb"] / row["measured_mb"] - 1
        rows[name] = row
        print(
            f"{name:36}{row['padded_seconds']:>5.0f} s{row['floor_mb']:>7.0f}"
            f"{row['predicted_mb']:>8.0f} MB{row['measured_mb']:>7.0f} MB{row['error']:>+8.1%}",
            flush=True,
        )
        if options.output:
            text = json.dumps({"machine": machine(), "rows": rows}, indent=1)
            Path(options.output).write_text(text, "utf-8")


if __name__ == "__main__":
    options = parse_arguments()
    if options.run:
        print(json.dumps(measure_run(options.run, options.data_folder)))
    elif options.plan:
        print(json.dumps(plan_run(options.plan, options.data_folder, options.seconds)))
    elif options.data_folder:
        run_all(options, options.data_folder)
    else:
        from brainquant.data.toy_speech import prepare_toy_speech

        with tempfile.TemporaryDirectory() as folder:
            prepare_toy_speech(folder)
            run_all(options, folder)
    sys.exit()
