"""Pretrained encoders of a moment's training, and their fine-tuning on ToySpeech."""

import csv
import json
from pathlib import Path

from tiny_run import HPARAMS, MODELS, build, drop_times, fit

from brainquant.data.batches import make_loaders
from brainquant.training import resolve
from brainquant.training.hparams import load_hparams, parse_arguments

FINETUNE = HPARAMS.parents[1] / "LibriSpeech/hparams/finetune_ctc.yaml"


def pretrain(name, corpus, folder, **overrides):
    """The folder of a run of one step, with its YAML as SpeechBrain leaves it there."""
    overrides = {**MODELS[name], "optimizer_step_limit": 1, "warmup_steps": 1, **overrides}
    brain, hparams = build(name, corpus, folder, **overrides)
    brain.run_log.draw_report = lambda *_: None  # longer than the training
    write_hparams(HPARAMS / f"{name}.yaml", folder, overrides)
    fit(brain, hparams)
    return folder


def write_hparams(hparams_file, folder, overrides):
    """Writes the YAML of a run into its folder, as ``main`` does at its start."""
    resolve.write_hparams(folder, hparams_file, {**overrides, "output_folder": str(folder)})


def manifests(corpus, folder):
    """ToySpeech's manifests with its texts as transcripts in capitals, by split."""
    paths = {}
    for split in ("train", "valid", "test"):
        with open(corpus / f"{split}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        paths[split] = Path(folder, f"{split}.csv")
        with open(paths[split], "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["ID", "duration", "wav", "wrd"])
            writer.writerows([r["ID"], r["duration"], r["wav"], r["text"].upper()] for r in rows)
    return paths


def options(pretrained, corpus, paths, output_folder, **overrides):
    """What a fine-tuning changes in its YAML to be a small one."""
    return {
        "pretrained": str(pretrained), "data_folder": str(corpus), "prepare": None,
        "output_folder": str(output_folder), "train_csv": str(paths["train"]),
        "valid_csv": str(paths["valid"]), "test_csv": [str(paths["test"])], "train_loggers": [],
        "precision": "fp32", "num_workers": 0, "num_buckets": 4, "batch_seconds": 8,
        "warmup_steps": 2, "log_interval": 2, "lr": 0.001, "lr_head": 0.01, **overrides,
    }  # fmt: skip


def build_ctc(*arguments, run_options="", **overrides):
    """The Brain of the fine-tuning recipe and its hyperparameters."""
    argv = [str(FINETUNE), "--noprogressbar", *run_options.split()]
    hparams_file, run_opts, from_command_line = parse_arguments(argv)
    changes = options(*arguments, **overrides) | from_command_line
    hparams = load_hparams(hparams_file, changes)
    brain = hparams["brain_class"](
        hparams["modules"], hparams["optimizer"], hparams, run_opts, hparams["checkpointer"]
    )
    return brain, hparams


def fit_ctc(brain, hparams):
    """Trains to the end."""
    loaders = make_loaders(hparams, min_samples=brain.min_samples, columns=brain.columns)
    brain.fit(hparams["epoch_counter"], *loaders)


def log_of(folder):
    """The log points of a run, without what depends on the clock."""
    lines = Path(folder, "metrics.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [drop_times(r) for r in records]
