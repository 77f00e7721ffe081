"""Opens a recipe beside its run: with a temporary output folder, so that the run stays as it is."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..training.hparams import parse_arguments
from ..training.needed_files import FOLDER, is_inside
from ..training.resolve import resolve
from ..training.values_by_key import values_by_key

MANIFESTS = (".csv", ".json", ".jsonl")


class Aside(NamedTuple):
    """A command line that leaves the files of a run alone.

    Attributes
    ----------
    argv : list of str
        The YAML file and options, with other folders.
    folder : pathlib.Path
        The temporary folder.
    values : dict of str to str
        What the recipe says by key, with the folders of the run.
    """

    argv: list[str]
    folder: Path
    values: dict[str, str]


@contextmanager
def opened_aside(argv: Sequence[str]) -> Iterator[Aside]:
    """The command line of a training with a temporary folder in the place of ``output_folder``.

    It gets copies of the manifests that the run has already, so the corpus is not prepared again,
    and links to the copies of files that the run needs.

    Arguments
    ---------
    argv : sequence of str
        What the recipe's ``train.py`` takes: the YAML file, then options.

    Raises
    ------
    ValueError
        If the recipe or an option is wrong, as in a training.
    """
    hparams_file, _, overrides = parse_arguments(argv)
    values = values_by_key(resolve(hparams_file, overrides))
    with tempfile.TemporaryDirectory(prefix="brainquant_plan_") as name:
        folder = Path(name).resolve() / "run"
        folder.mkdir()
        changes = {"output_folder": str(folder), "train_loggers": "[]"}
        output_folder = values.get("output_folder", "")
        if manifests := values.get("manifest_folder"):
            changes["manifest_folder"] = str(folder / "manifests")
            _copy_manifests(Path(manifests), folder / "manifests")
        _link_needed(Path(output_folder) / FOLDER, folder / FOLDER)
        checkpoints = values.get("checkpointer.checkpoints_dir")
        if checkpoints and not is_inside(checkpoints, output_folder):
            changes["checkpointer"] = f"{{checkpoints_dir: {folder / 'save'}}}"
        yield Aside(with_options(argv, changes), folder, values)


def with_options(argv: Sequence[str], changes: Mapping[str, str]) -> list[str]:
    """A command line with other values of some options.

    Example
    -------
    >>> with_options(["x.yaml", "--lr", "1", "--seed=2", "--debug"], {"lr": "3", "seed": "4"})
    ['x.yaml', '--debug', '--lr=3', '--seed=4']
    """
    kept, is_replaced = [], False
    for argument in argv:
        if argument.startswith("--"):
            is_replaced = argument[2:].partition("=")[0] in changes
        if not is_replaced:
            kept.append(argument)
    return [*kept, *(f"--{key}={value}" for key, value in changes.items())]


def _copy_manifests(source: Path, target: Path) -> None:
    if not source.is_dir():
        return
    target.mkdir()
    for path in source.iterdir():
        if path.suffix in MANIFESTS and path.is_file():
            shutil.copy2(path, target / path.name)


def _link_needed(source: Path, target: Path) -> None:
    """Links to what a run keeps of files that may be gone; they may be large."""
    if source.is_dir():
        shutil.copytree(source.resolve(), target, copy_function=os.symlink)
