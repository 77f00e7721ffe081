"""Codes or units of a corpus."""

from __future__ import annotations

from .command import AddCommand, check_output
from .encode import EPILOG, add_input


def run(
    layer: int | None,
    kmeans: str | None,
    dedup: bool,
    output: str,
    num_processes: int | None,
    **options: object,
) -> None:
    """Turns a corpus into discrete units; ``options`` are those of ``Job``."""
    from ..extraction import Job, KMeansTokens, QuantiserTokens, extract

    if kmeans is None and layer is not None:
        raise ValueError(
            f"--layer {layer} needs --kmeans, a file that brainquant kmeans has fitted to it; "
            f"leave both out for the codes of the model's own quantiser"
        )
    check_output("--output", output)
    results = QuantiserTokens(dedup) if kmeans is None else KMeansTokens(layer, kmeans, dedup)
    extract(Job(output=output, results=results, **options), num_processes)  # pyright: ignore


def add(command: AddCommand) -> None:
    """Adds the command to the parser."""
    added = command(
        run,
        "tokens",
        "Discrete units of audio: the codes of a model's quantiser, or those of a k-means.",
        epilog=EPILOG,
    )
    option = added.add_argument
    add_input(
        added,
        "km",
        {
            "km": "fairseq's",
            "jsonl": "a line for each clip",
            "kaldi": "ark and scp",
            "parquet": "a row for each clip",
            "npz": "NumPy",
        },
    )
    option("--kmeans", metavar="K", help="a .safetensors of brainquant kmeans")
    option(
        "--layer",
        metavar="K",
        type=int,
        help="layer that the k-means was fitted to (what its file says)",
    )
    option("--dedup", action="store_true", help="equal neighbours become one, with its duration")
