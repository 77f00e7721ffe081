"""Fits centroids to a corpus, probes the encoder of a run, packs a corpus into shards."""

from __future__ import annotations

import argparse
import logging
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

# A command imports the rest itself: --help is quick, and a signal while torch is imported also
# ends the program with one line.
from . import __version__
from .errors import one_line_errors

OVERRIDES = (
    "Every key of the recipe's YAML is an option too, as in training: --data_folder, "
    "--output_folder, --seed, --device and so on."
)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command; wrong input ends it with one line.

    Arguments
    ---------
    argv : sequence of str or None
        The arguments after the program's name; None takes those of the process.
    """
    parser = make_parser()
    arguments, overrides = parser.parse_known_args(argv)
    options = vars(arguments)
    run = options.pop("run")
    if "recipe" in options:
        options["argv"] = [options.pop("recipe"), *overrides]
    elif overrides:
        parser.error(f"unknown arguments: {' '.join(overrides)}")
    with one_line_errors():
        from .training.log_config import log_to_terminal

        log_to_terminal()
        run(**options)


def run_kmeans(argv: Sequence[str], output: str, **options: int) -> None:
    """Fits centroids to the training audio of a recipe and writes them into a file.

    Arguments
    ---------
    argv : sequence of str
        What the recipe's ``train.py`` takes: the YAML file, then options.
    output : str
        The .safetensors to write.
    **options : int
        Those of ``fit_kmeans``.
    """
    from safetensors.torch import save

    from .data.prepare import write_whole
    from .fitting import fit_kmeans, load_weights
    from .recipe import open_recipe
    from .training.lost_workers import explain_lost_workers

    check_output("--output", output)
    brain, loader = open_recipe(argv)
    load_weights(brain, options["layer"])
    with explain_lost_workers(loader):
        tensors, summary = fit_kmeans(brain, loader, **options)
    write_whole(output, save(tensors))
    print(f"{summary}; written to {output}")


def run_probe(
    run_folder: str, data_folder: str | None, device: str, output: str | None, **options: Any
) -> None:
    """Probes the last checkpoint of a run; ``options`` are those of ``probe``."""
    from .evaluation import format_table
    from .evaluation.probing import probe
    from .recipe import load_run

    output = output or os.path.join(run_folder, f"probe_{options['label'] or 'phones'}")
    check_output("--output", output)
    brain, hparams = load_run(run_folder, device=device)
    name = os.path.abspath(output)
    logging.getLogger("brainquant.evaluation.table").setLevel(logging.WARNING)  # it is printed
    print(format_table(probe(brain, hparams, data_folder=data_folder, name=name, **options)))
    print(f"step {brain.optimizer_step} of {run_folder}; written to {output}.json and {output}.png")


def run_shards(
    manifest: str, data_folder: str, output: str, shard_megabytes: float, num_workers: int
) -> None:
    """Packs the audio of a manifest into tar files."""
    from .data.shards import write_shards

    size = int(1e6 * shard_megabytes)
    made = write_shards(manifest, data_folder, output, shard_bytes=size, num_workers=num_workers)
    print(f"written; train with --train_csv {made} --data_folder {output}")


def run_copy(name: str, folder: str) -> None:
    """Copies a recipe into a folder of the user."""
    from .copying import copy_recipe

    print("\n".join(["The copy runs with:", *copy_recipe(name, folder)]))


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; it leaves the options of a recipe unparsed.

    Example
    -------
    >>> line = "kmeans r.yaml --output k.safetensors --layer 6 --data_folder x".split()
    >>> arguments, overrides = make_parser().parse_known_args(line)
    >>> arguments.layer, arguments.clusters, overrides
    (6, 500, ['--data_folder', 'x'])
    """
    parser = argparse.ArgumentParser("brainquant", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    def command(
        run: Callable[..., None], name: str, text: str, **more: Any
    ) -> argparse.ArgumentParser:
        more |= {"help": text, "description": text}
        # No abbreviations: an abbreviated option may be a key of the recipe's YAML.
        added = commands.add_parser(name, allow_abbrev=False, **more)
        added.set_defaults(run=run)
        return added

    # One line for each command, in the order of --help
    _add_kmeans(command)
    _add_probe(command)
    _add_shards(command)
    _add_copy(command)
    return parser


AddCommand = Callable[..., argparse.ArgumentParser]


def positive(text: str) -> float:
    """A finite number above 0, for argparse.

    Example
    -------
    >>> positive("2.5")
    2.5
    """
    if not 0 < (number := float(text)) < math.inf:
        raise ValueError(f"{text} is not above 0")
    return number


def _add_kmeans(command: AddCommand) -> None:
    added = command(
        run_kmeans,
        "kmeans",
        "Centroids of training frames, for brainquant.KMeansQuantizer.",
        epilog=OVERRIDES,
    )
    option = added.add_argument
    option("recipe", help="YAML file of the recipe, before all options")
    option("--output", required=True, help="file to write, a .safetensors")
    option(
        "--frames",
        dest="num_frames",
        metavar="N",
        type=int,
        default=500_000,
        help="frames to fit on, in as many passes over the corpus as needed (%(default)s)",
    )
    option(
        "--layer",
        metavar="K",
        type=int,
        default=0,
        help="0 (the default): the input of the quantiser; K: the output of encoder layer K, with "
        "the weights of the last checkpoint in the recipe's output_folder",
    )
    option(
        "--clusters", metavar="V", type=int, default=500, help="number of centroids (%(default)s)"
    )


def _add_probe(command: AddCommand) -> None:
    added = command(
        run_probe,
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


def _add_shards(command: AddCommand) -> None:
    added = command(
        run_shards,
        "shards",
        "Packs the audio of a manifest into tar files, for corpora of very many files.",
    )
    option = added.add_argument
    option("manifest", metavar="MANIFEST", help="CSV or JSON file")
    option("--data_folder", metavar="F", required=True, help="folder that $data_root stands for")
    option("--output", metavar="FOLDER", required=True, help="folder of the shards")
    option("--shard_megabytes", metavar="X", type=positive, default=1000, help="size (%(default)s)")
    option("--num_workers", metavar="N", type=int, default=1, help="processes (%(default)s)")


def _add_copy(command: AddCommand) -> None:
    added = command(
        run_copy,
        "copy",
        "Copies a recipe into a folder, where it runs without a clone of the repository.",
    )
    added.add_argument("name", metavar="RECIPE", help="ToySpeech, LibriSpeech or another one")
    added.add_argument("folder", metavar="FOLDER", help="new folder for the copy")


def check_output(option: str, path: str) -> None:
    """Makes the folder of an output file before the work; a ValueError if that is impossible."""
    folder = os.path.dirname(path) or "."
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{option} {path}: {error}; give another path") from error
    if os.path.isdir(path) or not os.access(folder, os.W_OK):
        raise ValueError(f"{option} {path}: cannot be written; give the path of a file")


if __name__ == "__main__":
    main()
