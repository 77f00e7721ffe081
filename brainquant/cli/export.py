"""Writes the encoder of a run as a folder to give away, or for ONNX Runtime."""

from __future__ import annotations

import os
from typing import Any

from .command import AddCommand, check_output


def run(source: str, output: str, format: str, **card: Any) -> None:
    """Exports an encoder; ``card`` are ``title``, ``license`` and ``language`` of the card."""
    if format == "onnx":
        if given := [f"--{name}" for name, value in card.items() if value is not None]:
            raise ValueError(f"{given[0]} is for the card, and --format onnx writes none")
        _export_onnx(source, os.path.join(output, "model.onnx"))
        return
    if format == "transformers":
        from ..publishing.to_transformers import export_to_transformers as export
    else:
        from ..publishing.export import export

    encoder = export(source, output, **card)
    step = "" if encoder.step is None else f" of step {encoder.step}"
    print(
        f"the encoder{step} is in {output}; load it with brainquant.load_pretrained({output!r}), "
        f"read its README.md, and upload it with: brainquant push {output} user/name"
    )


def _export_onnx(source: str, path: str) -> None:
    check_output("--output", path)
    if os.path.exists(path):
        raise ValueError(f"{path} exists; give the name of another folder")
    from ..inference import load_pretrained
    from ..publishing.onnx import export_onnx

    for note in export_onnx(load_pretrained(source), path):
        print(note)
    print(f"written to {path}")


def add(command: AddCommand) -> None:
    """Adds the command to the parser."""
    added = command(
        run,
        "export",
        "Writes the encoder of a run, with its quantiser and a model card, as a folder that is "
        "data: no code, no path of this machine.",
    )
    option = added.add_argument
    option("source", metavar="RUN", help="output_folder of a run; for onnx any model")
    option("--output", metavar="DIR", required=True, help="a new folder; for onnx also an old one")
    option("--title", help="heading of the card (the objective and the corpus)")
    option("--license", metavar="L", help="licence of the weights, as in apache-2.0")
    option("--language", metavar="CODES", help="languages of the speech, as in en or en,de")
    option(
        "--format",
        choices=["folder", "transformers", "onnx"],
        default="folder",
        help="transformers: what its from_pretrained loads, of a run that continues a model of "
        "it; onnx: only model.onnx, for ONNX Runtime (%(default)s)",
    )
