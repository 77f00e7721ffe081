"""Fits centroids to the training audio of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from .command import OVERRIDES, AddCommand, check_output


def run(argv: Sequence[str], output: str, **options: int) -> None:
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

    from ..data.prepare import write_whole
    from ..fitting import fit_kmeans, load_weights
    from ..recipe import open_recipe
    from ..training.lost_workers import explain_lost_workers

    check_output("--output", output)
    brain, loader = open_recipe(argv)
    load_weights(brain, options["layer"])
    with explain_lost_workers(loader):
        tensors, summary = fit_kmeans(brain, loader, **options)
    write_whole(output, save(tensors))
    print(f"{summary}; written to {output}")


def add(command: AddCommand) -> None:
    """Adds the command to the parser."""
    added = command(
        run,
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
