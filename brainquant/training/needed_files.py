"""What a run needs from outside is kept in its folder, so that it opens wherever that is moved to.

A class or function that a YAML calls may have ``files_needed``: by the name of an argument that is
a path, a function that keeps what it leads to. This gets the name, the path and a folder. It copies
into the folder what is not there yet, and gives the arguments that stand for this one from then on;
or None where there is nothing to copy, and no copy.
"""

import io
import os
import pydoc
from pathlib import Path

import ruamel.yaml
from ruamel.yaml.comments import TaggedScalar
from speechbrain.utils.logger import get_logger

from .checkpoint_folder import remove_tree
from .resolve import HPARAMS

logger = get_logger(__name__)

FOLDER = "needed"
CALLS = ("!new:", "!name:", "!apply:")


def keep_needed_files(run_folder, *, went_on):
    """Copies what the YAML of a run names into its folder, and has the YAML name the copies.

    Arguments
    ---------
    run_folder : str
        The ``output_folder``, with the ``hyperparams.yaml`` that SpeechBrain writes at each start.
    went_on : bool
        Whether the run goes on from a checkpoint. Then it keeps the files that it began with;
        otherwise those of an earlier run are replaced.
    """
    hparams_file = os.path.join(run_folder, HPARAMS)
    if not os.path.isfile(hparams_file):
        return
    with open(hparams_file, encoding="utf-8") as file:
        document = ruamel.yaml.YAML().load(file)
    changed = False
    for place, arguments, name, keep in needed_files(document):
        path, kept = arguments[name], os.path.join(run_folder, FOLDER, place)
        if is_inside(path, run_folder):
            changes = {name: path}
        else:
            if not went_on and os.path.exists(path) and os.path.lexists(kept):
                remove_tree(Path(kept))
            changes = keep(name, path, kept) or {}
        for key, value in changes.items():
            if isinstance(value, str):  # so that it is found in a folder that was moved
                value = f"<output_folder>/{os.path.relpath(value, run_folder)}"
                value = TaggedScalar(value, tag="!ref")
            arguments[key], changed = value, True
    if changed:
        with open(hparams_file + ".part", "w", encoding="utf-8") as file:
            ruamel.yaml.YAML().dump(document, file)
        os.replace(hparams_file + ".part", hparams_file)


def with_kept_files(text):
    """The YAML of a run whose files outside are gone, with the copies that the run has kept.

    Arguments
    ---------
    text : str
        The YAML that the run is started with again, with its references resolved.

    Returns
    -------
    text : str or None
        None where nothing is gone that was kept.
    """
    document = ruamel.yaml.YAML().load(text)
    folder, changed = os.path.join(str(document.get("output_folder")), FOLDER), False
    for place, arguments, name, keep in needed_files(document):
        path, kept = arguments[name], os.path.join(folder, place)
        if os.path.exists(path) or not (changes := keep(name, path, kept)):
            continue
        logger.warning(f"{place}: {path} is gone; the run goes on with its copy in {kept}")
        arguments.update(changes)
        changed = True
    if not changed:
        return None
    stream = io.StringIO()
    ruamel.yaml.YAML().dump(document, stream)
    return stream.getvalue()


def needed_files(node, place=(), seen=None):
    """Arguments of a YAML that name files: place, all arguments of the call, name, and keeper."""
    seen = set() if seen is None else seen
    if id(node) in seen or not isinstance(node, (dict, list)):
        return
    seen.add(id(node))  # an anchor leads to it again
    tag = node.tag.value or ""
    if isinstance(node, dict) and tag.startswith(CALLS):
        called = pydoc.locate(tag.partition(":")[2])
        for name, keep in getattr(called, "files_needed", {}).items():
            if isinstance(node.get(name), str):
                yield ".".join([*place, name]), node, name, keep
    for key, child in [*(node.items() if isinstance(node, dict) else enumerate(node))]:
        yield from needed_files(child, (*place, str(key)), seen)


def is_inside(path, folder):
    """Whether a path is that of something in a folder.

    Example
    -------
    >>> is_inside("runs/1/k.safetensors", "runs/1"), is_inside("runs/k.safetensors", "runs/1")
    (True, False)
    """
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([path, folder]) == folder
