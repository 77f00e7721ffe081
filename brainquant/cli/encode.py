"""Features of a corpus."""

from __future__ import annotations

import argparse

from .command import AddCommand, check_output, positive


def run(
    layers: list[int] | None,
    pool: str | None,
    half: bool,
    output: str,
    num_processes: int | None,
    **options: object,
) -> None:
    """Encodes a corpus; ``options`` are those of ``Job``."""
    from ..extraction import Features, Job, extract

    check_output("--output", output)
    results = Features(layers, pool, half)
    extract(Job(output=output, results=results, **options), num_processes)  # pyright: ignore


def add(command: AddCommand) -> None:
    """Adds the command to the parser."""
    added = command(
        run,
        "encode",
        "Features of audio: the hidden states of an encoder's layers, in a file.",
        epilog=EPILOG,
    )
    option = added.add_argument
    add_input(added, "npz", {"npz": "NumPy", "npy": "fairseq's, with .len", "kaldi": "ark and scp",
                             "parquet": "a row for each clip"})  # fmt: skip
    option(
        "--layers",
        metavar="K,...",
        type=layer_numbers,
        help="layers, from 1; 0: the input of the quantiser; each of several gets a file of its "
        "own (the output of the encoder, in one file)",
    )
    option("--half", action="store_true", help="write float16; it is computed in float32")
    option("--pool", choices=["mean"], help="one vector for each clip: the mean over its frames")


EPILOG = (
    "Interrupted and started again, it goes on. With torchrun --no-python, or srun, each process "
    "takes a share. F.json says what the output was made of; F.left_out.csv lists what cannot be "
    "read."
)


def layer_numbers(text: str) -> list[int]:
    """Numbers with commas between them, each once.

    Example
    -------
    >>> layer_numbers("4,2")
    [4, 2]
    """
    numbers = [int(number) for number in text.split(",")]
    if len({*numbers}) < len(numbers):
        raise ValueError("a layer is named twice")
    return numbers


def add_input(added: argparse.ArgumentParser, default: str, formats: dict[str, str]) -> None:
    """Adds what encode and tokens have in common."""
    option = added.add_argument
    option("model", metavar="MODEL", help="folder of a run or of brainquant export, or user/name")
    option(
        "source",
        metavar="SOURCE",
        help="audio file, folder, or manifest of SpeechBrain, NeMo, lhotse, Kaldi, fairseq, ...",
    )
    option("--output", metavar="F", required=True, help="file to write")
    option(
        "--data_folder",
        metavar="D",
        help="folder that $data_root in a manifest stands for (the manifest's folder)",
    )
    shown = "; ".join(f"{name}: {text}" for name, text in formats.items())
    option("--format", choices=[*formats], default=default, help=f"{shown} (%(default)s)")
    option("--device", default="cpu", help="cpu, cuda or cuda:0 (%(default)s)")
    option(
        "--batch_seconds",
        metavar="X",
        type=positive,
        default=20.0,
        help="seconds of a batch, with its padding (%(default)s)",
    )
    option(
        "--num_workers", metavar="N", type=count, default=2, help="threads that read (%(default)s)"
    )
    option(
        "--num_processes",
        metavar="N",
        type=count,
        help="processes (on the CPU one for each core)",
    )


def count(text: str) -> int:
    """A whole number from 1, for argparse.

    Example
    -------
    >>> count("2")
    2
    """
    if (number := int(text)) < 1:
        raise ValueError(f"{text} is not above 0")
    return number
