"""Looks at a run before it starts."""

from __future__ import annotations

from collections.abc import Sequence

from .command import OVERRIDES, AddCommand, check_output, positive


def run(argv: Sequence[str], minutes: float, output: str, search_batch: bool) -> None:
    """Plans the run of a recipe; the arguments are those of ``brainquant.planning.plan.plan``."""
    check_output("--output", output)
    from ..planning.plan import plan

    plan(argv, minutes=minutes, output=output, search_batch=search_batch)


def add(command: AddCommand) -> None:
    """Adds the command to the parser."""
    added = command(
        run,
        "plan",
        "Looks at a run before it starts: its data, codes, memory, time and learning rate, and "
        "what will go wrong, with the key to change. It leaves the files of the run alone.",
        epilog=OVERRIDES,
    )
    option = added.add_argument
    option("recipe", metavar="RECIPE.yaml", help="YAML file of a recipe, before all its options")
    option(
        "--minutes",
        metavar="X",
        type=positive,
        default=2.0,
        help="time for it, after the corpus is prepared (%(default)g)",
    )
    option("--output", metavar="F", default="plan.json", help="file to write (%(default)s)")
    option(
        "--find_batch",
        dest="search_batch",
        action="store_true",
        help="find the largest batch that fits by real steps, which takes up to 5 minutes more",
    )
