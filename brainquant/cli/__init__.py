"""The commands of brainquant: everything around training."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

# A command imports the rest itself: --help is quick, and a signal while torch is imported also
# ends the program with one line.
from .. import __version__
from ..errors import one_line_errors
from . import compare, copy, encode, export, kmeans, plan, probe, push, report, shards, tokens

# In the order of --help: before a run, about runs, and what is made of their encoders.
COMMANDS = (
    plan, compare, report, probe, encode, tokens, kmeans, export, push, shards, copy,
)  # fmt: skip


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
        from ..training.log_config import log_to_terminal

        log_to_terminal()
        run(**options)


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

    for module in COMMANDS:
        module.add(command)
    return parser
