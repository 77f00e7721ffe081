"""The whole training step: SpeechBrain's stock BEST-RQ and wav2vec 2.0 beside ours.

> python tests/benchmarks/steps.py --output steps.json

The same encoder, batches and precision, on 8 clips of 5 s (of noise: nothing here depends on what
is said). Ours is the recipe's whole `fit`; after each of its steps stock.py makes one on the same
clips, so that what slows the machine slows both. Memory is from processes of their own. The parts
are from a second run, since taking their time takes time. About 10 minutes on 2 cores;
`--only best_rq` runs what has that in its name.
"""

import argparse
import importlib
import json
import os
import statistics
import tempfile
import time
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import soundfile
import torch
from measure import extra_mb, in_process, machine, print_table
from stock import StockTraining

from brainquant.data.batches import make_loaders
from brainquant.training.hparams import load_hparams, parse_arguments

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
CLIPS, SECONDS = 8, 5.0
# The codes, the masks and the loss of stock's recipes, so that only the code differs.
BEST_RQ = [
    "--make_quantiser", "!include:../../../hparams/quantisers/random_projection.yaml",
    "--unmasked_weight", 0, "--mask_ratio", 0.6, "--mask_length", 4,
]  # fmt: skip
WAV2VEC2 = ["--mask_ratio", 0.68, "--mask_length", 10]
SMALL_WAV2VEC2 = ["ToySpeech/hparams/wav2vec2.yaml", *WAV2VEC2, "--num_layers", 4]
WIDE = ["--channels", 512, "--extractor", "{out_channels: [512, 512, 512, 512, 512, 512, 512]}"]
MODELS = {
    "best_rq small": [
        "ToySpeech/hparams/best_rq.yaml", *BEST_RQ, "--front_end", "{out_channels: [128, 32]}",
    ],
    "best_rq small, as in our recipe": [
        "ToySpeech/hparams/best_rq.yaml", "--front_end", "{out_channels: [128, 32]}",
    ],
    "wav2vec2 small": SMALL_WAV2VEC2,
    "wav2vec2 small, 512 channels": [*SMALL_WAV2VEC2, *WIDE],
    "best_rq base": ["LibriSpeech/hparams/best_rq_base.yaml", *BEST_RQ],
    "wav2vec2 base": ["LibriSpeech/hparams/wav2vec2_base.yaml", *WAV2VEC2],
}  # fmt: skip
LR, WARMUP_STEPS = 0.0005, 100
WARMUP = 2  # steps that are not counted
PARTS = (
    "reading", "features", "masks", "quantiser", "front end", "encoder", "head and loss",
    "backward", "optimiser", "the rest",
)  # fmt: skip


class Clock:
    """Seconds of each part, what it calls in other parts left out."""

    def __init__(self):
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.running = []

    @contextmanager
    def part(self, name):
        """Takes the time of what is within."""
        self.turn()
        self.running.append(name)
        try:
            yield
        finally:
            self.turn()
            self.running.pop()

    def turn(self):
        """Books the time since the last turn."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.running:
            self.seconds[self.running[-1]] += now - self.last
        self.last = now

    def wrap(self, owner, method, name):
        """Takes the time of a method of an object."""
        call = getattr(owner, method)

        def timed(*args, **kwargs):
            with self.part(name):
                return call(*args, **kwargs)

        setattr(owner, method, timed)


@contextmanager
def timed_backward(clock):
    """Takes the time of the backward within."""
    backward = torch.Tensor.backward

    def timed(*args, **kwargs):
        with clock.part("backward"):
            backward(*args, **kwargs)

    torch.Tensor.backward = timed
    try:
        yield
    finally:
        torch.Tensor.backward = backward


def write_corpus(folder, clips=4 * CLIPS, seconds=SECONDS):
    """Clips of noise and their manifest."""
    lines = ["ID,duration,wav"]
    for clip in range(clips):
        noise = 0.1 * torch.randn(int(seconds * 16000))
        soundfile.write(os.path.join(folder, f"{clip}.flac"), noise.numpy(), 16000)
        lines.append(f"{clip},{seconds},$data_root/{clip}.flac")
    Path(folder, "clips.csv").write_text("\n".join(lines), "utf-8")


def recipe_arguments(name, steps, folder, change=()):
    """The command line of a model's recipe, on the clips of a folder."""
    hparams_file, *model = MODELS[name]
    options = {
        "output_folder": f"{folder}/run", "data_folder": folder, "seed": 0, "lr": LR,
        "train_csv": f"{folder}/clips.csv", "valid_csv": f"{folder}/clips.csv",
        "prepare": "null", "evaluate": "null", "batch_clips": CLIPS, "number_of_epochs": 10**6,
        "optimizer_step_limit": steps, "warmup_steps": WARMUP_STEPS, "log_interval": 50,
        "hang_minutes": 0, "grad_accumulation_factor": 1, "num_workers": 0, "max_seconds": 30,
    }  # fmt: skip
    changed = [*model, *change]
    options |= {key[2:]: value for key, value in zip(changed[::2], changed[1::2])}
    pairs = [[f"--{key}", str(value)] for key, value in options.items()]
    return [str(RECIPES / hparams_file), *sum(pairs, []), "--noprogressbar"]


def open_recipe(name, steps, folder, change=()):
    """The Brain of a model, and its loaders."""
    hparams_file, run_opts, overrides = parse_arguments(
        recipe_arguments(name, steps, folder, change)
    )
    hparams = load_hparams(hparams_file, overrides)
    os.makedirs(hparams["output_folder"], exist_ok=True)
    brain = hparams["brain_class"](
        hparams["modules"], hparams["optimizer"], hparams, run_opts, hparams["checkpointer"]
    )
    return brain, make_loaders(hparams, min_samples=brain.min_samples)


def open_stock(name, folder, change=()):
    """Stock's training of the same encoder, and clips to train it on."""
    brain, (loader, _) = open_recipe(name, 1, folder, change)
    training = StockTraining(name.split()[0], brain, LR, WARMUP_STEPS)
    return training, loader.dataset


def watch_ours(brain, clock):
    """Takes the time of the parts of our Brain."""
    encoder = brain.modules["encoder"]
    for owner, method, part in (
        (brain, "draw_mask", "masks"),
        (brain.quantiser, "forward", "quantiser"),
        (brain.quantiser, "encode", "quantiser"),
        (encoder.transformer, "forward", "encoder"),
        (brain, "compute_forward", "head and loss"),
        (brain, "compute_objectives", "head and loss"),
        (brain, "optimizers_step", "optimiser"),
    ):
        clock.wrap(owner, method, part)
    if hasattr(encoder, "extractor"):
        clock.wrap(encoder.extractor, "forward", "front end")
    else:
        clock.wrap(encoder.front_end, "forward", "front end")
        clock.wrap(encoder, "features", "features")


def watch_stock(training, clock):
    """Takes the time of the parts of stock's step."""
    model = training.model
    for owner, method, part in (
        (model, "collate", "masks"),
        (model.quantiser, "forward", "quantiser"),
        (model.encoder, "forward", "encoder"),
        (model, "forward", "head and loss"),
        (training, "update", "optimiser"),
    ):
        clock.wrap(owner, method, part)
    if hasattr(model, "extractor"):
        clock.wrap(model.extractor.extractor, "forward", "front end")
    else:
        clock.wrap(model.front_end, "forward", "front end")
        clock.wrap(model.compute_features, "forward", "features")
        clock.wrap(model.normalize, "forward", "features")


def run_both(name, steps, change=(), parts=False):
    """Seconds of each step, and the shares of its parts, with stock's code and with ours."""
    seconds, clocks = {"stock": [], "ours": []}, {"stock": Clock(), "ours": Clock()}
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(folder, CLIPS * (steps + 1))  # one epoch
        training, dataset = open_stock(name, folder, change)
        brain, loaders = open_recipe(name, steps, folder, change)
        if parts:
            watch_stock(training, clocks["stock"])
            watch_ours(brain, clocks["ours"])

        def timed(method, call, *arguments):
            clock = clocks[method]
            with clock.part("the rest"), timed_backward(clock) if parts else nullcontext():
                began = clock.last
                result = call(*arguments)
            seconds[method].append(clock.last - began)
            return result

        def both(batch, fit_batch=brain.fit_batch):
            if len(seconds["ours"]) == WARMUP:
                for clock in clocks.values():
                    clock.seconds = dict.fromkeys(PARTS, 0.0)
            elif seconds["ours"]:
                clocks["ours"].seconds["reading"] += time.perf_counter() - clocks["stock"].last
            loss = timed("ours", fit_batch, batch)
            timed("stock", training.step, [dataset[clip] for clip in range(CLIPS)])
            return loss

        brain.fit_batch = both
        brain.fit(brain.hparams.epoch_counter, *loaders)
    shares = {}
    for method, clock in clocks.items():
        total = sum(clock.seconds.values())
        shares[method] = {part: taken / total for part, taken in clock.seconds.items()}
    return {m: statistics.median(values[WARMUP:]) for m, values in seconds.items()}, shares


class Enough(Exception):
    """Ends a run that has made its steps: what comes after them has memory of its own."""


def memory_of(name, method, change):
    """Megabytes that three steps add at their peak to what the model takes; in this process."""
    # Every optimiser of torch imports it, 90 MB: before the measuring in both.
    importlib.import_module("torch._dynamo")
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(folder)
        if method == "stock":
            training, dataset = open_stock(name, folder, change)
            clips = [dataset[clip] for clip in range(CLIPS)]
            return extra_mb(lambda: [training.step(clips) for _ in range(3)])
        brain, loaders = open_recipe(name, 4, folder, change)

        def three_batches(batch, fit_batch=brain.fit_batch):
            if brain.optimizer_step == 3:
                raise Enough
            return fit_batch(batch)

        def run():
            with suppress(Enough):
                brain.fit(brain.hparams.epoch_counter, *loaders)

        brain.fit_batch = three_batches
        return extra_mb(run)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", help="a JSON file")
    parser.add_argument("--only", default="", help="models that have this in their name")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--memory", nargs=2, metavar=("MODEL", "METHOD"), help=argparse.SUPPRESS)
    options, change = parser.parse_known_args()
    if options.memory:
        print(json.dumps(memory_of(*options.memory, change)))
        return
    print(machine())
    rows, part_rows = [], []
    for name in MODELS:
        if options.only not in name:
            continue
        seconds, _ = run_both(name, options.steps, change)
        _, shares = run_both(name, WARMUP + 5, change, parts=True)
        memory = {m: in_process(__file__, "--memory", name, m, *change) for m in seconds}
        for method in ("stock", "ours"):
            rows.append({
                "model": name,
                "code": method,
                "seconds per step": seconds[method],
                "speech per second": CLIPS * SECONDS / seconds[method],
                "stock's / ours": seconds["stock"] / seconds[method],
                "peak MB": memory[method],
                "ours / stock's": memory[method] / memory["stock"],
            })  # fmt: skip
            shown = {part: f"{100 * share:.1f}" for part, share in shares[method].items()}
            part_rows.append({"model": name, "code": method, **shown})
        if options.output:
            result = {"machine": machine(), "steps": rows, "parts": part_rows}
            Path(options.output).write_text(json.dumps(result, indent=2), "utf-8")
    print_table("Steps of 8 clips of 5 s: medians", rows)
    print_table("Shares of the step in %", part_rows)


if __name__ == "__main__":
    main()
