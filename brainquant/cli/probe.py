"""Probes an encoder."""

from __future__ import annotations

import logging
import os
from typing import Any

from .command import AddCommand, check_output, positive


def run(
    model: str,
    data_folder: str | None,
    device: str,
    output: str | None,
    checkpoint: str | None,
    **options: Any,
) -> None:
    """Probes a model; ``options`` are those of ``prepare_comparison``, and the manifests."""
    from ..evaluation import format_table
    from ..evaluation.over_steps import ALL, format_steps, load_checkpoint, probe_steps
    from ..evaluation.probing import probe_subject
    from ..evaluation.subjects import subject_of_model, subject_of_run
    from ..inference.folder import is_exported
    from ..inference.loading import HPARAMS
    from ..recipe import load_run

    is_run = os.path.isfile(os.path.join(model, HPARAMS)) and not is_exported(model)
    if checkpoint is not None and not is_run:
        raise ValueError(f"--checkpoint: {model} is not the folder of a run; leave it out")
    name = f"probe_{options['label'] or 'phones'}" + (f"_{checkpoint}" if checkpoint else "")
    output = output or (os.path.join(model, name) if is_run else name)
    check_output("--output", output)
    manifests = {split: options.pop(split) for split in ("train", "valid", "test")}
    options["path"] = os.path.abspath(output)
    of_model, brain, hparams = model, None, {}
    if is_run:
        brain, hparams = load_run(model, device=device)
        if checkpoint not in (None, ALL):
            load_checkpoint(brain, checkpoint)
        of_model = f"step {brain.optimizer_step} of {model}"
    options["data_folder"] = data_folder or hparams.get("data_folder") or "."
    if checkpoint == ALL:
        table, of_model = probe_steps(brain, hparams, manifests, **options), model
        print(format_steps(table))
    else:
        subject = subject_of_run(brain, hparams) if is_run else subject_of_model(model, device)
        logging.getLogger("brainquant.evaluation.table").setLevel(logging.WARNING)  # printed here
        print(format_table(probe_subject(subject, manifests, **options)))
    print(f"{of_model}; written to {output}.json and {output}.png")


def add(command: AddCommand) -> None:
    """Adds the command to the parser."""
    added = command(
        run,
        "probe",
        "Linear classifiers on each layer of an encoder, beside log-mel and the untrained "
        "encoder. Writes a table, a .json and a .png.",
    )
    option = added.add_argument
    option(
        "model",
        metavar="MODEL",
        help="folder of a run, of brainquant export or of transformers, or user/name",
    )
    for split, use in {
        "train": "to fit the classifiers on",
        "valid": "to choose the layer on",
        "test": "to measure the accuracy on",
    }.items():
        option(f"--{split}", metavar="CSV", required=True, help=f"manifest {use}")
    labels = added.add_mutually_exclusive_group(required=True)
    labels.add_argument(
        "--label", metavar="COLUMN", help="column of the manifests with a label per utterance"
    )
    labels.add_argument(
        "--alignments",
        metavar="FOLDER",
        help="phone alignments, <ID>.tsv at any depth; the codes are then measured too",
    )
    option(
        "--abx",
        action="store_true",
        help="also ABX errors of the test phones (column spk_id); needs fastabx and Python 3.12",
    )
    option(
        "--checkpoint",
        metavar="C",
        help="of a run: a step or the name of a checkpoint's folder, or all, for accuracy over "
        "the steps that are kept (the last)",
    )
    option(
        "--data_folder",
        metavar="F",
        help="folder that $data_root stands for (the run's data_folder, or the working folder)",
    )
    option(
        "--train_minutes", metavar="X", type=positive, help="speech to fit on at most (all of it)"
    )
    option(
        "--seeds",
        dest="num_seeds",
        metavar="N",
        type=int,
        default=3,
        help="draws of training utterances and of untrained encoders (%(default)s)",
    )
    option(
        "--context",
        metavar="N",
        type=int,
        default=1,
        help="frames on both sides of each, for alignments (%(default)s)",
    )
    option("--device", default="cpu", help="device of the encoder (%(default)s)")
    option(
        "--output",
        metavar="PREFIX",
        help="files to write, without ending (probe_<label> or probe_phones; of a run, in its "
        "folder)",
    )
