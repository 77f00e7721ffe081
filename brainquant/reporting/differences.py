"""What differs between the configurations of runs, and only that."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hyperpyyaml.core import parse_arithmetic

from ..training.changed_keys import QUANTISER
from ..training.keys import ALL, InYaml
from .run_files import DAMAGED, read_values
from .run_folder import RunFolder

OUTPUT = "output_folder"
FOLDERS = (OUTPUT, "data_folder")  # which other paths begin with
REFERENCE = re.compile(r"<([^<>]+)>")
ARITHMETIC = re.compile(r"[\d\s.()+\-*/]{1,200}")


def what_differs(runs: Sequence[RunFolder]) -> dict[str, list[str | None]]:
    """The keys whose values differ, with the value in each run.

    Left out are the output folder, a key that only refers to another one that is listed, and what a
    recipe computes from it, as ``warmup_steps: !ref <optimizer_step_limit> // 10``. The arguments
    of an object are not listed if its class differs, except those of the quantiser.

    Arguments
    ---------
    runs : sequence of RunFolder
        A run without a YAML has None everywhere.

    Returns
    -------
    differences : dict of str to list
        By the keys as in the YAML, ``make_quantiser.cb_vocab``; None where a run lacks the key.
        Run options, versions of packages and of Python follow, as far as all runs tell them.

    Example
    -------
    >>> from brainquant.reporting.several_runs import read_runs
    >>> for name, lr in (("a", "0.1"), ("b", "1e-2")):
    ...     folder = getfixture("tmp_path") / name
    ...     folder.mkdir()
    ...     _ = (folder / "hyperparams.yaml").write_text(f"lr: {lr}\\noutput_folder: {folder}")
    >>> runs, _ = read_runs([folder.parent / "a", folder])
    >>> what_differs(runs)
    {'lr': ['0.1', '1e-2']}
    """
    known = [values_in_force(run) for run in runs]
    order = dict.fromkeys(key for values in known for key in values if key != OUTPUT)
    listed: dict[str, list[str | None]] = {}
    seen: set[tuple[str | None, ...]] = set()
    for key in sorted(order, key=lambda key: key.count(".")):
        values = tuple(comparable(key, of_run) for of_run in known if of_run)
        parents = [key.rsplit(".", n)[0] for n in range(1, key.count(".") + 1)]
        hidden = any(parent in listed for parent in parents) and not key.startswith(QUANTISER)
        if len(set(values)) > 1 and not hidden and not (parents and values in seen):
            listed[key] = [of_run.get(key) for of_run in known]
            seen.add(values)
    recipes = {run.recipe: _values_of_recipe(run.recipe) for run in runs}
    computed = {key for key in listed if _is_computed(key, runs, recipes, listed)}
    made_with = [_made_with(run) for run in runs]
    told = [key for key in made_with[0] if key not in order] if runs else []
    for key in told:
        values = [of_run.get(key) for of_run in made_with]
        if None not in values and len(set(values)) > 1:
            listed[key] = values
    return {key: listed[key] for key in [*order, *told] if key in listed.keys() - computed}


def values_in_force(run: RunFolder) -> dict[str, str]:
    """The values that count: options of the command line win over the YAML."""
    return run.values | {key: run.options[key] for key in run.options.keys() & run.values.keys()}


def _made_with(run: RunFolder) -> dict[str, str]:
    """What its log tells beside the YAML."""
    return run.options | {f"version of {name}": text for name, text in run.versions.items()}


def comparable(key: str, values: Mapping[str, str]) -> str | None:
    """A value in one form, and with other folders instead of their paths."""
    value = values.get(key)
    if value is None:
        return None
    for name in FOLDERS:
        folder = values.get(name, "").rstrip("/")
        if folder and name != key:
            inside = rf"(?<![^\s\[,]){re.escape(folder)}(?=[/,\]]|$)"
            value = re.sub(inside, lambda _, name=name: f"<{name}>", value)
    return _in_one_form(value)


def _in_one_form(value: str) -> str:
    """0.10 and 1e-1 are the same number, true and True the same answer."""
    try:
        return repr(float(value))
    except ValueError:
        return value.lower() if value.lower() in ("true", "false") else value


def _is_computed(
    key: str,
    runs: Sequence[RunFolder],
    recipes: Mapping[str, Mapping[str, str]],
    listed: Iterable[str],
) -> bool:
    """Whether the recipe of each run computes a value from keys that are listed."""
    for run in runs:
        if not run.values:
            continue
        formula = _formula(recipes[run.recipe], key)
        if key not in run.values or not any(name in listed for name in REFERENCE.findall(formula)):
            return False
        # Somebody may have set the key as well: then it is a setting, unless it is the same.
        if _in_one_form(_compute(formula, run.values)) != _in_one_form(run.values[key]):
            return False
    return True


def _compute(formula: str, values: Mapping[str, str]) -> str:
    """What a text with references stands for; hyperpyyaml computes whatever is arithmetic."""
    written = REFERENCE.sub(lambda found: values.get(found[1], "?"), formula)
    if not ARITHMETIC.fullmatch(written) or "**" in written:
        return written
    try:
        return str(parse_arithmetic(written.strip()))
    except (ArithmeticError, RecursionError):
        return written


def _formula(recipe: Mapping[str, str], key: str) -> str:
    """What a recipe computes a key from, or the default of the key; empty if nothing."""
    default = ALL[key].default if key in ALL else None
    text = recipe.get(key, default if isinstance(default, InYaml) else "")
    return text.removeprefix("!ref ") if text.startswith("!ref ") else ""


def _values_of_recipe(recipe: str) -> Mapping[str, str]:
    """The values of a recipe's YAML, if it is still there."""
    try:
        return read_values(Path(recipe)) if os.path.isfile(recipe) else {}
    except DAMAGED:
        return {}
