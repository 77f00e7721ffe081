"""Makes parts of the reference from the code: keys of the YAML, the command line, modules.

A page asks for a part with a comment, as in ``<!-- keys: LOADERS -->``.
"""

import argparse
import importlib
import pkgutil
import re
import sys
from typing import TypeVar

from brainquant import cli
from brainquant.training import keys
from brainquant.training.ranges import REQUIRED

LONGEST_DEFAULT = 45  # characters that fit into a table


def fill_in(app, docname, source):
    """Replaces the comments of a page by what they ask for."""
    makers = {"keys": keys_table, "commands": commands, "modules": modules}
    pattern = r"<!-- (" + "|".join(makers) + r"): (\S+) -->"
    source[0] = re.sub(pattern, lambda found: makers[found[1]](found[2]), source[0])


def type_variable(app, env, node, contnode):
    """A type variable of an annotation has no description to link to."""
    module, _, name = node.get("reftarget", "").rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return contnode if isinstance(found, TypeVar) else None


def keys_table(group):
    """A table of the keys of one group of ``brainquant/training/keys.py``."""
    lines, long_defaults = ["| key | meaning | value | default |", "|---|---|---|---|"], []
    # Only other lines of a YAML need these.
    optional = group in ("REFERENCED", "OPTIONS")
    for name, key in getattr(keys, group).items():
        allowed = key.allowed.replace(" (in quotes if YAML would read it as something else)", "")
        allowed += ", or null" if key.null else ""
        if key.example is not None:
            allowed += f", as in `{in_yaml(key.example)}`"
        default = f"`{in_yaml(key.default)}`"
        if key.default is REQUIRED:
            default = "" if optional else "required"
        elif len(default) > LONGEST_DEFAULT:
            long_defaults.append(f"{name}: {key.default}")
            default = "below"
        cells = [f"`{name}`", key.meaning, allowed, default]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if long_defaults:
        lines += ["", "Long defaults, as a YAML has them:", "", "```text", *long_defaults, "```"]
    return "\n".join(lines)


def in_yaml(value):
    """A value as a YAML file says it, in one line."""
    if value is None:
        return "null"
    return "[]" if value == () else " ".join(str(value).split())


def commands(_):
    """The help of each command of ``brainquant``."""
    parser = cli.make_parser()
    parts = [help_block(parser)]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                parts.append(f"### brainquant {name}\n\n{help_block(command)}")
    return "\n\n".join(parts)


def help_block(parser):
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=88)
    return f"```text\n{parser.format_help().strip()}\n```"


def modules(room):
    """The docstrings of a package's modules, or of one module."""
    package = importlib.import_module(room)
    parts = []
    if not hasattr(package, "__path__"):
        parts.append(module_part(room))
    else:  # the page's title is its name
        parts.append(f"```{{eval-rst}}\n.. automodule:: {room}\n   :no-members:\n```")
        for found in pkgutil.walk_packages(package.__path__, f"{room}."):
            parts.append(module_part(found.name, ":no-members:" if found.ispkg else ""))
    return "\n\n".join(parts)


def module_part(name, members=""):
    """A heading and the docstrings of a module; a package's members are under its modules."""
    return f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   {members}\n```"
