"""What the promises of docs/explanation/reliability.md cost: a step, its parts, and a checkpoint.

> pip install -e ".[demo]"
> python tests/benchmarks/reliability.py

About 5 minutes on 2 cores, on three minutes of speech that it synthesises. The recipe is that of
recipes/ToySpeech/hparams/best_rq.yaml, at its real size. Its Brain takes turns, on the same
batches, with one that promises nothing, and with another of that kind: their ratio is the noise.
"""

import argparse
import functools
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from measure import alternate, machine, print_table
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataio import read_audio
from speechbrain.utils.checkpoints import Checkpointer
from torch.multiprocessing.spawn import spawn
from torch.utils.data import DataLoader
from typing_extensions import override

from brainquant.brains import BestRQBrain
from brainquant.data.audio import AudioReader
from brainquant.data.batches import RankBatchSampler, make_batches, make_loaders
from brainquant.data.manifests import load_dataset
from brainquant.data.toy_speech import prepare_toy_speech
from brainquant.ranks import add_over_ranks, leave_group
from brainquant.recipe import build_brain
from brainquant.training.buffers import BufferCopies
from brainquant.training.hparams import load_hparams, parse_arguments
from brainquant.training.randomness import derived_generator, seed_global_generators
from brainquant.training.watchdog import Watchdog
from brainquant.training.watched_loader import WatchedLoader

HPARAMS = Path(__file__).resolve().parents[2] / "recipes/ToySpeech/hparams/best_rq.yaml"


class BareBrain(BestRQBrain):
    """The same training with SpeechBrain's own step, which promises nothing.

    ``@override`` lets the type checker find a method that has another name by now: its
    replacement would change nothing, and the Brain would not be bare.
    """

    one_generator: torch.Generator

    @override
    def fit_batch(self, batch):
        return sb.Brain.fit_batch(self, batch)

    @override
    def update_average(self, loss, avg_loss):
        return sb.Brain.update_average(self, loss, avg_loss)

    @override
    def _should_save_intra_epoch_ckpt(self, last_ckpt_time, steps_since_ckpt):
        return sb.Brain._should_save_intra_epoch_ckpt(self, last_ckpt_time, steps_since_ckpt)

    @override
    def on_fit_batch_start(self, batch, should_step):
        self.on_optimizer_step()

    @override
    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        pass

    @override
    def optimizers_step(self):
        self.hparams.lr_schedule(self.optimizer, self.optimizer_step + 1)
        sb.Brain.optimizers_step(self)

    @override
    def waveforms(self, batch):
        self.batch_is_empty = False
        wavs, relative = batch.to(self.device).sig
        return wavs, (relative * wavs.shape[1]).round().long()

    @override
    def generators(self, stage):
        return self.one_generator, self.one_generator

    @override
    def observe(self, stage, codes_NG, **sums):
        self.tally.window.add(codes_NG, batches=torch.ones(()), **sums)


def open_recipe(corpus, folder, brain_class=None):
    """The Brain of the recipe, or one of another class, and its hyperparameters."""
    argv = [str(HPARAMS), "--data_folder", str(corpus), "--output_folder", str(folder)]
    hparams_file, run_opts, overrides = parse_arguments(argv)
    # A log point costs the same for both, and would come in the middle of the turns.
    hparams = load_hparams(hparams_file, {**overrides, "train_loggers": [], "log_interval": 10**9})
    if brain_class is not None:
        hparams["brain_class"] = brain_class
    return build_brain(hparams, run_opts), hparams


def bare_loader(hparams):
    """SpeechBrain's way to read the same batches."""
    dataset = load_dataset(
        hparams["train_csv"],
        hparams["data_folder"],
        hparams["min_seconds"],
        hparams["max_seconds"],
        reader=lambda path, duration: read_audio(path),
    )
    batches = RankBatchSampler(make_batches(dataset, hparams, shuffle=True))
    return DataLoader(dataset, batch_sampler=batches, collate_fn=PaddedBatch)


def turns(brain, hparams):
    """A generator that makes a step each time: what SpeechBrain's ``_fit_train`` does."""
    bare = isinstance(brain, BareBrain)
    loader = bare_loader(hparams) if bare else make_loaders(hparams)[0]
    brain.one_generator = torch.Generator().manual_seed(hparams["seed"])
    brain.prepare_fit(loader)
    with brain.watchdog:
        brain.on_fit_start()
        brain.modules.train()
        for epoch in hparams["epoch_counter"]:
            brain.step = 0
            brain.place.start_epoch(loader.batch_sampler, epoch)
            brain.steps.start_epoch()
            watched = WatchedLoader(loader, "training", brain.watchdog, brain.left_out)
            for batch in loader if bare else watched:
                brain.step += 1
                loss = brain.fit_batch(batch)
                brain.avg_train_loss = brain.update_average(loss, brain.avg_train_loss)
                brain._should_save_intra_epoch_ckpt(time.time(), 0)
                yield


def time_steps(corpus, folder, number):
    """A row for each Brain, and the Brain of the recipe, trained for so many steps."""
    brain, hparams = open_recipe(corpus, folder / "brain")
    runs = {"as it is": turns(brain, hparams)}
    for name in ("bare", "bare again"):
        runs[name] = turns(*open_recipe(corpus, folder / name, BareBrain))
    wall, cpu = {name: [] for name in runs}, {name: [] for name in runs}
    warm_up, names = 10, list(runs)
    for turn in range(warm_up + number):
        first = turn % len(names)  # each is the first as often as the others
        for name in names[first:] + names[:first]:
            began, began_cpu = time.perf_counter(), time.process_time()
            next(runs[name])
            if turn >= warm_up:
                wall[name].append(time.perf_counter() - began)
                cpu[name].append(time.process_time() - began_cpu)

    def ratio(seconds, name):
        # Of the same batch each: batches differ more than the Brains do.
        return statistics.median(a / b for a, b in zip(seconds[name], seconds["bare"]))

    rows = [
        {
            "Brain": name,
            "ms, median": 1000 * statistics.median(wall[name]),
            "ratio to bare": f"{ratio(wall, name):.4f}",
            "CPU ms": 1000 * statistics.median(cpu[name]),
            "ratio of CPU": f"{ratio(cpu, name):.4f}",
        }
        for name in ("bare", "bare again", "as it is")
    ]
    return rows, brain, hparams


def time_parts(brain, hparams):
    """Microseconds of each part in a step of one rank."""
    dataset: Any = make_loaders(hparams)[0].dataset
    clips = [(clip["wav"], clip["duration"]) for clip in dataset.data.values()][:8]
    reader = AudioReader(hparams["sample_rate"])
    buffers = BufferCopies(brain.modules)
    loss, codes = torch.ones(()), torch.zeros(150, 1, dtype=torch.long)
    sums = {name: torch.ones(()) for name in ("loss", "correct", "targets", "masked", "valid")}
    bare_observe = functools.partial(BareBrain.observe, brain)
    watchdog = Watchdog(0)
    parts = {
        "tick (3 in a step)": (lambda: watchdog.tick("a training step"), 1),
        "seeding of dropout": (lambda: seed_global_generators(1234, "dropout", 1, 7), 1),
        "generator of masks and noise": (lambda: derived_generator("cpu", 1234, "TRAIN", 1, 7), 1),
        "is the loss finite": (lambda: torch.where(torch.isfinite(loss), 1.0, float("nan")), 1),
        "sums, checked": (lambda: brain.observe(sb.Stage.TRAIN, codes, **sums), 1),
        "sums, bare": (lambda: bare_observe(sb.Stage.TRAIN, codes, **sums), 1),
        "BufferCopies.keep_if": (lambda: buffers.keep_if(torch.tensor(True)), 1),
        "meet": (lambda: brain.meeting.meet(1), 1),
        "reading a clip, checked": (lambda: [reader(*clip) for clip in clips], len(clips)),
        "reading a clip, bare": (lambda: [read_audio(path) for path, _ in clips], len(clips)),
    }
    loops = 50

    def repeated(call):
        return lambda: [call() for _ in range(loops)]

    seconds = alternate({name: repeated(call) for name, (call, _) in parts.items()}, repeats=15)
    return [
        {"part": name, "us": 1e6 * seconds[name] / loops / items}
        for name, (_, items) in parts.items()
    ]


def time_saves(brain, folder):
    """Milliseconds of a checkpoint of the same Brain, with each Checkpointer."""
    recoverables = {n: r for n, r in brain.checkpointer.recoverables.items() if n != "brain"}
    stock = Checkpointer(folder / "stock", recoverables)
    seconds = alternate(
        {
            "speechbrain": lambda: stock.save_and_keep_only(num_to_keep=2),
            "ours": lambda: brain.save({}),
        },
        repeats=15,
    )
    size = sum(path.stat().st_size for path in brain.save({}).path.iterdir())
    return [
        {"Checkpointer": name, "ms": 1000 * seconds[name], "MB": size / 1e6,
         "times speechbrain": seconds[name] / seconds["speechbrain"]}
        for name in seconds
    ]  # fmt: skip


def time_meeting(ranks=2, number=2000):
    """Microseconds in which that many ranks add up their three numbers."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_meet, (ranks, folder, number), nprocs=ranks)
        return [{"ranks": ranks, "us, median": torch.load(f"{folder}/result")}]


def _meet(number, ranks, folder, times):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/store", rank=number, world_size=ranks
    )
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        add_over_ranks(0, 0, 0)
        seconds.append(time.perf_counter() - began)
    if number == 0:
        torch.save(1e6 * statistics.median(seconds), f"{folder}/result")
    leave_group()


def main():
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--turns", type=int, default=200, help="steps of each Brain (%(default)s)")
    arguments = parser.parse_args()
    print(f"{machine()}; {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        corpus = folder / "corpus"
        prepare_toy_speech(corpus, train_minutes=3.0, valid_minutes=0.3, test_minutes=0.3)
        rows, brain, hparams = time_steps(corpus, folder, arguments.turns)
        print_table("a step", rows)
        print_table("its parts, on one rank", time_parts(brain, hparams))
        print_table("a checkpoint", time_saves(brain, folder))
    print_table("ranks meet", time_meeting())


if __name__ == "__main__":
    main()
