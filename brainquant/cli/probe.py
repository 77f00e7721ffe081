"""Probes the encoder of a run."""

from __future__ import annotations

import logging
import os
from typing import Any

from .command import AddCommand, check_output, positive


def run(
    run_folder: str, data_folder: str | None, device: str, output: str | None, **options: Any
) -> None:
    """Probes the last checkpoint of a run; ``options`` are those of ``probe``."""
    from ..evaluation import format_table
    from ..evaluation.probing import probe
    from ..recipe import load_run

    output = output or os.path.join(run_folder, f"probe_{options['label'] or 'phones'}")
    check_output("--output", output)
    brain, hparams = load_run(run_folder, device=device)
    name = os.path.abspath(output)
    logging.getLogger("brainquant.evaluation.table").setLevel(logging.WARNING)  # it is printed
    print(format_table(probe(brain, hparams, data_folder=data_folder, name=name, **options)))
    print(f"step {brain.optimizer_step} of {run_folder}; written to {output}.json and {output}.png")


def add(command: AddCommand) -> None:
    """Adds the command to the parser."""
    added = command(
        run,
        "probe",
        "Linear classifiers on each layer of a run's encoder, beside log-mel and the untrained "
        "encoder. Writes a table, a .json and a .png.",
    )
    option = added.add_argument
    option("run_folder", metavar="RUN_FOLDER", help="output_folder of the run")
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
        "--data_folder",
        metavar="F",
        help="folder that $data_root stands for (the run's data_folder)",
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
        help="files to write, without ending (probe_<label> or probe_phones in RUN_FOLDER)",
    )
