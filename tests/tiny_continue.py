"""Runs of the recipes of OwnSpeech that continue a model, on ToySpeech and for a moment."""

from pathlib import Path

from tiny_run import fit

from brainquant.recipe import build_brain
from brainquant.training.hparams import load_hparams, parse_arguments
from brainquant.training.resolve import write_hparams

HPARAMS = Path(__file__).resolve().parents[1] / "recipes/OwnSpeech/hparams"


def build(name, model, corpus, folder, **overrides):
    """The Brain of a recipe that continues ``model``, its hyperparameters and its changes."""
    hparams_file, run_opts, _ = parse_arguments([str(HPARAMS / f"{name}.yaml"), "--noprogressbar"])
    overrides = {
        "model": str(model), "source": str(corpus), "data_folder": str(corpus), "prepare": None,
        "train_csv": f"{corpus}/train.csv", "valid_csv": f"{corpus}/valid.csv",
        "output_folder": str(folder), "train_loggers": [], "num_workers": 0, "batch_seconds": 8,
        "num_buckets": 4, "grad_accumulation_factor": 1, "optimizer_step_limit": 1,
        "warmup_steps": 1, "cooldown_steps": 1, **overrides,
    }  # fmt: skip
    hparams = load_hparams(hparams_file, overrides)
    return build_brain(hparams, run_opts), hparams, overrides


def start(name, model, corpus, folder, **overrides):
    """Trains, as the same command does each time; returns the Brain."""
    brain, hparams, overrides = build(name, model, corpus, folder, **overrides)
    write_hparams(folder, HPARAMS / f"{name}.yaml", overrides)
    brain.run_log.draw_report = lambda *_: None  # longer than the training
    fit(brain, hparams)
    return brain
