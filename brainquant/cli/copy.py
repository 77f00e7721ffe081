"""Copies a recipe into a folder of the user."""

from __future__ import annotations

from .command import AddCommand


def run(name: str, folder: str) -> None:
    """Copies a recipe into a folder of the user."""
    from ..copying import copy_recipe

    print("\n".join(["The copy runs with:", *copy_recipe(name, folder)]))


def add(command: AddCommand) -> None:
    """Adds the command to the parser."""
    added = command(
        run,
        "copy",
        "Copies a recipe into a folder, where it runs without a clone of the repository.",
    )
    added.add_argument("name", metavar="RECIPE", help="ToySpeech, LibriSpeech or another one")
    added.add_argument("folder", metavar="FOLDER", help="new folder for the copy")
