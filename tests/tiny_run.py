"""Runs of recipes on ToySpeech with a model so small that a step takes a moment."""

import json
import os
import signal
import tempfile
from pathlib import Path

import torch
from speechbrain import Stage

from brainquant.data.batches import make_loaders
from brainquant.errors import RunError
from brainquant.ranks import leave_group, rank, world_size
from brainquant.training.hparams import load_hparams, parse_arguments

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
HPARAMS = RECIPES / "ToySpeech/hparams"
MODELS = {
    "best_rq": {"num_layers": 1, "d_model": 16, "cb_vocab": 32},
    "wav2vec2": {"num_layers": 1, "d_model": 16, "channels": 16, "num_negatives": 10},
    "online_codebooks": {
        "num_layers": 3, "d_model": 16, "num_target_layers": 2, "make_quantiser": {"num_vars": 8},
    },
    "online_codebooks_waveform": {
        "num_layers": 2, "d_model": 16, "num_target_layers": 2, "make_quantiser": {"num_vars": 8},
        "channels": 16,
    },
    "continue_best_rq": {"cooldown_steps": 2, "num_workers": 0},
    "continue_masked": {"cb_vocab": 32, "num_workers": 0},
    "continue_speechbrain_wav2vec2": {
        "num_negatives": 10, "cooldown_steps": 2, "num_workers": 0,
    },
    "continue_wav2vec2": {"num_negatives": 10, "cooldown_steps": 2, "num_workers": 0},
}  # fmt: skip
# What a recipe of OwnSpeech needs to train on ToySpeech. Its model is an argument.
OWN_SPEECH = {"source": "none", "prepare": None, "grad_accumulation_factor": 1}


def hparams_of(name):
    """The YAML of a recipe."""
    folder = "OwnSpeech" if name.startswith("continue") else "ToySpeech"
    return RECIPES / folder / "hparams" / f"{name}.yaml"


def build(name, corpus, output_folder, run_options="", objects=None, **overrides):
    """The Brain of a recipe and its hyperparameters.

    An override gives no object a new class; ``objects`` has what another YAML would build.
    """
    argv = [str(hparams_of(name)), "--noprogressbar", *run_options.split()]
    hparams_file, run_opts, from_command_line = parse_arguments(argv)
    if "OwnSpeech" in hparams_file:
        manifests = {f"{split}_csv": f"{corpus}/{split}.csv" for split in ("train", "valid")}
        overrides = {**OWN_SPEECH, **manifests, **overrides}
    overrides = {
        "data_folder": str(corpus), "output_folder": str(output_folder), "train_loggers": [],
        "batch_seconds": 8, "num_buckets": 4, "warmup_steps": 2, "quality_minutes": 0,
        **MODELS[name], **overrides,
        **from_command_line,
    }  # fmt: skip
    hparams = load_hparams(hparams_file, overrides)
    hparams.update(objects or {})
    brain = hparams["brain_class"](
        hparams["modules"], hparams["optimizer"], hparams, run_opts, hparams["checkpointer"]
    )
    return brain, hparams


def fit(brain, hparams, after_preflight=None):
    """Trains to the end."""
    loaders = make_loaders(hparams, min_samples=brain.min_samples)
    if after_preflight:
        after_preflight()
    brain.fit(hparams["epoch_counter"], *loaders)


class Died(Exception):
    """Raised in the place of a SIGKILL: nothing after it runs."""


def run(
    name,
    corpus,
    output_folder,
    *,
    interrupt=None,
    at=None,
    nan_at=(),
    seed_by_rank=False,
    after_preflight=None,
    **overrides,
):
    """Trains, and interrupts the training after a number of batches.

    Arguments
    ---------
    interrupt : str or None
        "SIGTERM" for the signal itself, "death" for an end without a checkpoint.
    at : int
        Batches of this rank, of training and validation, after which that happens.
    nan_at : collection of int
        Batches of the last rank, counted alike, whose loss is made NaN.
    seed_by_rank : bool
        Whether ranks build their modules from different seeds, as they should not.
    after_preflight : callable or None
        Called when the manifests are read, before the training.

    Returns
    -------
    brain : PretrainBrain
    trace : list
        For each training batch its epoch, number, clips and loss.
    """
    if seed_by_rank:
        overrides["make_quantiser"] = {"seed": rank()}
    brain, hparams = build(name, corpus, output_folder, **overrides)
    trace, seen = [], 0
    compute_objectives = brain.compute_objectives

    def traced(predictions, batch, stage):
        nonlocal seen
        loss = compute_objectives(predictions, batch, stage)
        if stage == Stage.TRAIN:
            epoch = hparams["epoch_counter"].current
            trace.append((epoch, brain.batch_number, tuple(batch.id), loss.item()))
        seen += 1
        last_rank = rank() == world_size() - 1
        if interrupt and seen == at:
            if interrupt == "death":
                raise Died
            if last_rank:  # the others hear of it
                os.kill(os.getpid(), signal.SIGTERM)
        return loss * float("nan") if last_rank and seen in nan_at else loss

    brain.compute_objectives = traced
    try:
        fit(brain, hparams, after_preflight)
    except SystemExit as end:
        assert end.code == 143 and interrupt == "SIGTERM"
    except Died:
        pass
    return brain, trace


def drop_times(record):
    """Drops the numbers of a log point that a clock measures."""
    for name in ("speech_per_second", "run_seconds"):
        record.pop(name, None)
    return record


def state(brain):
    """Everything that two equal runs have in common, bit by bit."""
    with open(brain.run_log.metrics_file, encoding="utf-8") as file:
        log = [json.loads(line) for line in file]
    for record in log:
        drop_times(record)
    tensors = {name: t.clone() for name, t in brain.modules.state_dict().items()}
    for number, values in brain.optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer {number} {name}": t for name, t in values.items()})
    tensors["train_codes"] = brain.tally.run.counts
    return {"log": log, "tensors": tensors, "lr": brain.optimizer.param_groups[0]["lr"]}


def assert_equal_runs(one, other):
    """Compares what ``state`` gives, to the last bit."""
    assert len(one["log"]) == len(other["log"]) and one["lr"] == other["lr"]
    for record, same in zip(one["log"], other["log"]):
        unequal = {key: (record[key], same[key]) for key in record if record[key] != same[key]}
        assert not unequal, f"step {record['step']}, {record['stage']}: {unequal}"
    assert one["tensors"].keys() == other["tensors"].keys()
    for name, tensor in one["tensors"].items():
        assert torch.equal(tensor, other["tensors"][name]), name


def run_on_ranks(ranks, runs):
    """Calls ``run`` in as many processes, for one list of keywords after another.

    Returns
    -------
    results : list
        For each run, for each rank: the trace and, where it came to its end, the state; or the
        RunError with which it ended, and None.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, (ranks, folder, runs), nprocs=ranks)
        results = [torch.load(f"{folder}/{n}", weights_only=False) for n in range(ranks)]
    return list(zip(*results))


def _rank(number, ranks, folder, runs):
    torch.set_num_threads(1)
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE=str(ranks))
    results = []
    for turn, keywords in enumerate(runs):
        torch.distributed.init_process_group(
            "gloo", f"file://{folder}/store{turn}", rank=number, world_size=ranks
        )
        try:
            brain, trace = run(**keywords)
        except RunError as error:
            results.append((error, None))
            leave_group()
            continue
        interrupted = not torch.distributed.is_initialized()  # it has left the group already
        results.append((trace, None if interrupted else state(brain)))
        leave_group()
    torch.save(results, f"{folder}/{number}")
