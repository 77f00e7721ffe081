"""The folder of a run keeps copies of the files that the run needs, so that it can be moved.

A class or function that a YAML calls may have ``files_needed``, a dictionary with a function for
each argument that is a path. The function gets the name of the argument, the path, and a path for
the copy. It copies the file unless a copy is there, and returns the arguments that replace this
one; or None if there is neither a file nor a copy. If it has a parameter ``arguments``, it also
gets all arguments of the call.
"""

from __future__ import annotations

import functools
import inspect
import io
import os
import pydoc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ruamel.yaml
from ruamel.yaml.comments import TaggedScalar
from speechbrain.utils.logger import get_logger

from ..huggingface.hub import is_hub_id
from .checkpoint_folder import remove_tree
from .defaults import tag_of
from .resolve import HPARAMS

logger = get_logger(__name__)

FOLDER = "needed"
CALLS = ("!new:", "!name:", "!apply:")


def keep_needed_files(run_folder: str | os.PathLike[str], *, went_on: bool) -> None:
    """Copies the files that a run's YAML names into its folder; the YAML then names the copies.

    Arguments
    ---------
    run_folder : str
        The ``output_folder``, with the ``hyperparams.yaml`` that each start writes.
    went_on : bool
        Whether the run goes on from a checkpoint. If so, it keeps the files that it began with;
        if not, new copies replace those of an earlier run.
    """
    hparams_file = os.path.join(run_folder, HPARAMS)
    if not os.path.isfile(hparams_file):
        return
    with open(hparams_file, encoding="utf-8") as file:
        document = ruamel.yaml.YAML().load(file)
    changed = False
    for keys, arguments, name, keep in needed_files(document):
        path, kept = arguments[name], os.path.join(run_folder, FOLDER, keys)
        if is_inside(path, run_folder):
            changes = {name: path}
        else:
            is_there = os.path.exists(path) or is_hub_id(path)
            if not went_on and is_there and os.path.lexists(kept):
                remove_tree(Path(kept))
            changes = keep(name, path, kept) or {}
        for key, value in changes.items():
            if isinstance(value, str):  # relative to the folder, which may be moved
                value = f"<output_folder>/{os.path.relpath(value, run_folder)}"
                value = TaggedScalar(value, tag="!ref")
            arguments[key], changed = value, True
    if changed:
        with open(hparams_file + ".part", "w", encoding="utf-8") as file:
            ruamel.yaml.YAML().dump(document, file)
        os.replace(hparams_file + ".part", hparams_file)


def with_kept_files(text: str) -> str | None:
    """The YAML of a run with the run's copies in the place of files that are gone.

    Arguments
    ---------
    text : str
        The YAML that starts the run again, with its references resolved.

    Returns
    -------
    text : str or None
        None if no such file is gone.
    """
    document = ruamel.yaml.YAML().load(text)
    folder, changed = os.path.join(str(document.get("output_folder")), FOLDER), False
    for keys, arguments, name, keep in needed_files(document):
        path, kept = arguments[name], os.path.join(folder, keys)
        # A Hub id is no path; without a copy it is not gone, and what is wrong is something else.
        if os.path.exists(path) or not os.path.lexists(kept):
            continue
        if not (changes := keep(name, path, kept)):
            continue
        logger.warning(f"{keys}: {path} is gone; the run goes on with its copy in {kept}")
        arguments.update(changes)
        changed = True
    if not changed:
        return None
    stream = io.StringIO()
    ruamel.yaml.YAML().dump(document, stream)
    return stream.getvalue()


def needed_files(
    node: Any, path: tuple[str, ...] = (), seen: set[int] | None = None
) -> Iterator[tuple[str, dict[str, Any], str, Callable[..., dict[str, Any] | None]]]:
    """The arguments of a YAML that name files.

    Yields the keys that lead to the argument, all arguments of the call, the name of this one, and
    the function that keeps the file.
    """
    seen = set() if seen is None else seen
    if id(node) in seen or not isinstance(node, (dict, list)):
        return
    seen.add(id(node))  # an anchor leads to it again
    tag = tag_of(node)
    if isinstance(node, dict) and tag.startswith(CALLS):
        called = pydoc.locate(tag.partition(":")[2])
        for name, keep in getattr(called, "files_needed", {}).items():
            if isinstance(node.get(name), str):
                if "arguments" in inspect.signature(keep).parameters:
                    keep = functools.partial(keep, arguments=node)
                yield ".".join([*path, name]), node, name, keep
    for key, child in [*(node.items() if isinstance(node, dict) else enumerate(node))]:
        yield from needed_files(child, (*path, str(key)), seen)


def is_inside(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Whether a path leads into a folder.

    Example
    -------
    >>> is_inside("runs/1/k.safetensors", "runs/1"), is_inside("runs/k.safetensors", "runs/1")
    (True, False)
    """
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([path, folder]) == folder
