"""Fits what a quantiser is made from, probes what a run has learnt, packs a corpus into shards."""

import argparse
import logging
import math
import os

# What else a command needs is imported in it: a signal while torch is imported ends it with one
# line, too, and --help waits for nothing.
from .errors import one_line_errors

OVERRIDES = (
    "Every key of the recipe's YAML is an option too, as in training: --data_folder, "
    "--output_folder, --seed, --device and so on."
)


def main(argv=None):
    """Runs the command; input that is wrong ends it with one line.

    Arguments
    ---------
    argv : list of str or None
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


def run_kmeans(argv, output, **options):
    """Fits centroids to the training audio of a recipe and writes them into a file.

    Arguments
    ---------
    argv : list of str
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


def run_probe(run_folder, data_folder, device, output, **options):
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


def run_shards(manifest, data_folder, output, shard_megabytes, num_workers):
    """Packs the audio of a manifest into tar files."""
    from .data.shards import write_shards

    size = int(1e6 * shard_megabytes)
    made = write_shards(manifest, data_folder, output, shard_bytes=size, num_workers=num_workers)
    print(f"written; train with --train_csv {made} --data_folder {output}")


def make_parser():
    """The parser of what is not an option of the recipe.

    Example
    -------
    >>> line = "kmeans r.yaml --output k.safetensors --layer 6 --data_folder x".split()
    >>> arguments, overrides = make_parser().parse_known_args(line)
    >>> arguments.layer, arguments.clusters, overrides
    (6, 500, ['--data_folder', 'x'])
    """
    parser = argparse.ArgumentParser("brainquant", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(metavar="command", required=True)

    def command(run, name, text, **more):
        more |= {"help": text, "description": text}
        # An abbreviated option may be a key of the recipe's YAML.
        added = commands.add_parser(name, allow_abbrev=False, **more)
        added.set_defaults(run=run)
        return added

    _add_kmeans(command)
    _add_probe(command)
    _add_shards(command)
    return parser


def positive(text):
    """A finite number above 0, for argparse.

    Example
    -------
    >>> positive("2.5")
    2.5
    """
    if not 0 < (number := float(text)) < math.inf:
        raise ValueError(f"{text} is not above 0")
    return number


def _add_kmeans(command):
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
        help="frames to fit on, in as many passes over the corpus as that takes (%(default)s)",
    )
    option(
        "--layer",
        metavar="K",
        type=int,
        default=0,
        help="0 (the default): what the quantiser sees; K: what encoder layer K gives, with the "
        "weights of the last checkpoint in the recipe's output_folder",
    )
    option(
        "--clusters", metavar="V", type=int, default=500, help="number of centroids (%(default)s)"
    )


def _add_probe(command):
    added = command(
        run_probe,
        "probe",
        "What a run's encoder has learnt: a linear classifier on each layer, beside log-mel and "
        "the untrained encoder. Writes a table, a .json and a .png.",
    )
    option = added.add_argument
    option("run_folder", metavar="RUN_FOLDER", help="output_folder of the run")
    for split, use in {
        "train": "the classifiers are fitted on",
        "valid": "the layer is chosen on",
        "test": "the accuracy is of",
    }.items():
        option(f"--{split}", metavar="CSV", required=True, help=f"manifest that {use}")
    labels = added.add_mutually_exclusive_group(required=True)
    labels.add_argument(
        "--label", metavar="COLUMN", help="column of the manifests with a label per utterance"
    )
    labels.add_argument(
        "--alignments",
        metavar="FOLDER",
        help="phone alignments, <ID>.tsv at any depth; then the codes are measured too",
    )
    option("--data_folder", metavar="F", help="what $data_root stands for (the run's data_folder)")
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
    option("--device", default="cpu", help="where the encoder computes (%(default)s)")
    option(
        "--output",
        metavar="PREFIX",
        help="files to write, without ending (probe_<label> or probe_phones in RUN_FOLDER)",
    )


def _add_shards(command):
    added = command(
        run_shards,
        "shards",
        "Packs the audio of a manifest into tar files, for corpora of very many files.",
    )
    option = added.add_argument
    option("manifest", metavar="MANIFEST", help="CSV or JSON file")
    option("--data_folder", metavar="F", required=True, help="what $data_root in it stands for")
    option("--output", metavar="FOLDER", required=True, help="where the shards are written")
    option("--shard_megabytes", metavar="X", type=positive, default=1000, help="size (%(default)s)")
    option("--num_workers", metavar="N", type=int, default=1, help="processes (%(default)s)")


def check_output(option, path):
    """Makes the folder of a file before the work, or a ValueError where it cannot be written."""
    folder = os.path.dirname(path) or "."
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{option} {path}: {error}; give another path") from error
    if os.path.isdir(path) or not os.access(folder, os.W_OK):
        raise ValueError(f"{option} {path}: cannot be written; give the path of a file")


if __name__ == "__main__":
    main()
