"""Fits centroids to the audio of a recipe, or to that of any corpus."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .command import OVERRIDES, AddCommand, check_output

USAGE = """brainquant kmeans MODEL SOURCE --output FILE [options]
       brainquant kmeans RECIPE.yaml --output FILE [options] [keys of the YAML]"""


def run(argv: Sequence[str], output: str, **options: int) -> None:
    """Fits centroids and writes them into a file.

    Arguments
    ---------
    argv : sequence of str
        A model, then a corpus and options of ``corpus_parser``; or what the recipe's ``train.py``
        takes: the YAML file, then options.
    output : str
        The .safetensors to write.
    **options : int
        ``layer``, ``clusters`` and ``num_frames``.
    """
    first, *others = argv
    if first.endswith((".yaml", ".yml")):
        check_output("--output", output)
        content, summary = fit_recipe(argv, **options)
    else:
        corpus = corpus_parser().parse_args(others)
        check_output("--output", output)
        from ..extraction.kmeans import fit_model

        content, summary = fit_model(
            first, corpus.source, seed=corpus.seed, device=corpus.device, **options
        )
    from ..data.prepare import write_whole

    write_whole(output, content)
    print(f"{summary}; written to {output}")


def fit_recipe(argv: Sequence[str], **options: int) -> tuple[bytes, str]:
    """The content of a file of centroids of a recipe's training audio, and a summary."""
    from ..fitting import describe_frames, fit_kmeans, load_weights, recipe_fingerprint
    from ..functional.safe_bytes import safetensors_bytes
    from ..recipe import open_recipe
    from ..training.lost_workers import explain_lost_workers

    brain, loader = open_recipe(argv)
    fingerprint = recipe_fingerprint(brain) if load_weights(brain, options["layer"]) else None
    with explain_lost_workers(loader):
        tensors, summary = fit_kmeans(brain, loader, **options)
    metadata = describe_frames(
        brain.raw("encoder"), options["layer"], options["num_frames"], fingerprint
    )
    return safetensors_bytes(tensors, metadata), summary


def corpus_parser() -> argparse.ArgumentParser:
    """The parser of what follows MODEL.

    argparse of some Pythons gives an optional positional argument the value of an unknown option,
    which may be a key of a recipe's YAML. So the main parser does not know SOURCE.
    """
    parser = argparse.ArgumentParser("brainquant kmeans MODEL", usage=USAGE, allow_abbrev=False)
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser


def add(command: AddCommand) -> None:
    """Adds the command to the parser."""
    added = command(
        run,
        "kmeans",
        "Centroids of frames, for the units of a trained encoder (brainquant tokens) and for "
        "brainquant.KMeansQuantizer.",
        usage=USAGE,
        epilog="SOURCE is an audio file, a folder of audio, or a manifest; it follows MODEL. Two "
        "more options may follow it: --seed N decides the order of its audio, --device D where the "
        f"model computes. With a recipe: {OVERRIDES}",
    )
    option = added.add_argument
    option(
        "recipe",
        metavar="MODEL or RECIPE.yaml",
        help="the folder of a run, an exported folder or a model of the Hugging Face Hub; or the "
        "YAML file of a recipe, before all its options",
    )
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
        help="0 (the default): the input of the quantiser; K: the output of encoder layer K; of a "
        "recipe with the weights of the last checkpoint in its output_folder",
    )
    option(
        "--clusters", metavar="V", type=int, default=500, help="number of centroids (%(default)s)"
    )
