"""Fits what a quantiser is made from to the training audio of a recipe."""

import argparse
import os

from safetensors.torch import save_file

from .data.batches import make_loaders
from .fitting import fit_kmeans, fit_pca, load_weights
from .training.errors import clear_errors
from .training.hparams import load_hparams, parse_arguments

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
    arguments, overrides = make_parser().parse_known_args(argv)
    options = vars(arguments)
    recipe, output, fit = (options.pop(name) for name in ("recipe", "output", "fit"))
    with clear_errors():
        check_output(output)
        brain, loader = open_recipe([recipe, *overrides])
        load_weights(brain, options.get("layer", 0))
        tensors, summary = fit(brain, loader, **options)
        save_file(tensors, output + ".part")
        os.replace(output + ".part", output)  # whole, or not at all
        print(f"{summary}; written to {output}")


def make_parser():
    """The parser of what is not an option of the recipe.

    Example
    -------
    >>> line = "kmeans r.yaml --output k.safetensors --layer 6 --data_folder x".split()
    >>> arguments, overrides = make_parser().parse_known_args(line)
    >>> arguments.layer, arguments.clusters, overrides
    (6, 500, ['--data_folder', 'x'])
    """
    parser = argparse.ArgumentParser("brainquant", description=__doc__)
    commands = parser.add_subparsers(metavar="command", required=True)

    def command(fit, name, text, frames):
        added = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=OVERRIDES,
            allow_abbrev=False,  # the YAML may have a key of that name
        )
        added.set_defaults(fit=fit)
        added.add_argument("recipe", help="YAML file of the recipe, before all options")
        added.add_argument("--output", required=True, help="file to write, a .safetensors")
        added.add_argument(
            "--frames", dest="num_frames", metavar="N", type=int, default=500_000, help=frames
        )
        return added

    kmeans = command(
        fit_kmeans,
        "kmeans",
        "Centroids of training frames, for brainquant.KMeansQuantizer.",
        "frames to fit on, in as many passes over the corpus as that takes (%(default)s)",
    )
    kmeans.add_argument(
        "--layer",
        metavar="K",
        type=int,
        default=0,
        help="0 (the default): what the quantiser sees; K: what encoder layer K gives, with the "
        "weights of the last checkpoint in the recipe's output_folder",
    )
    kmeans.add_argument(
        "--clusters", metavar="V", type=int, default=500, help="number of centroids (%(default)s)"
    )
    pca = command(
        fit_pca,
        "pca",
        "Whitening projection, for brainquant.RandomProjectionQuantizer.",
        "frames to fit on at most, one pass over the corpus (%(default)s)",
    )
    pca.add_argument(
        "--dim",
        metavar="D",
        type=int,
        default=16,
        help="components, the quantiser's cb_dim (%(default)s)",
    )
    return parser


def check_output(path):
    """Makes the folder of a file before the work, or a ValueError where it cannot be written."""
    folder = os.path.dirname(path) or "."
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {path}: {error}; give another path") from error
    if os.path.isdir(path) or not os.access(folder, os.W_OK):
        raise ValueError(f"--output {path}: cannot be written; give the path of a file")


def open_recipe(argv):
    """The Brain of a recipe and the loader of its training audio, which is made if need be.

    Arguments
    ---------
    argv : list of str
        What the recipe's ``train.py`` takes: the YAML file, then options.

    Returns
    -------
    brain : PretrainBrain
        Before training.
    train_loader : torch.utils.data.DataLoader
    """
    hparams_file, run_opts, overrides = parse_arguments(argv)
    hparams = load_hparams(hparams_file, overrides)
    if hparams["prepare"]:
        hparams["prepare"]()
    brain = hparams["brain_class"](
        hparams["modules"], hparams["optimizer"], hparams, run_opts, hparams["checkpointer"]
    )
    train_loader, _ = make_loaders(hparams, min_samples=brain.min_samples)
    return brain, train_loader
