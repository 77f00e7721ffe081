"""From a recipe's YAML to its objects: texts stay as they were typed, errors name the key."""

from __future__ import annotations

import copy
import datetime
import io
import os
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import ruamel.yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml.comments import CommentedMap, TaggedScalar
from ruamel.yaml.error import YAMLError
from typing_extensions import override

from ..old_addresses import refuse_old_modules
from ..ranks import on_main_process
from .defaults import add_defaults, keys_read, tag_of
from .keys import OPTIONS, REFERENCED, check_single_values

HPARAMS = "hyperparams.yaml"  # in each run's folder, as SpeechBrain has it

# What a constructor raises at wrong arguments.
WRONG_ARGUMENT = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


def read_yaml(hparams_file: str | os.PathLike[str]) -> CommentedMap:
    """A YAML with its tags, or a ValueError that names the line that cannot be read.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.yaml"
    >>> _ = path.write_text("lr: 0.1\\nsource: a: b")
    >>> read_yaml(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ...x.yaml is no YAML: line 2: mapping values are not allowed here; put a text ...
    """
    if not os.path.isfile(hparams_file):
        raise ValueError(f"there is no file {hparams_file}; give the path of a recipe's YAML")
    with open(hparams_file, encoding="utf-8") as file:
        try:
            document = ruamel.yaml.YAML().load(file)
        except (YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            line = f"line {mark.line + 1}: " if mark else ""
            reason = _one_line(getattr(error, "problem", None) or error)
            raise ValueError(
                f"{hparams_file} is no YAML: {line}{reason}; put a text with special characters "
                f"into quotes, and write each key once"
            ) from error
    if not isinstance(document, CommentedMap):
        raise ValueError(f"{hparams_file} has no keys: give the path of a recipe's YAML")
    return document


def resolve(
    hparams_file: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None
) -> str:
    """The YAML with defaults and overrides, its references resolved, as text; checks all ranges.

    hyperpyyaml 1.2.3 also looks for references in the values of references, and takes ``2024/7``
    for a division. So the texts of the overrides are inserted after the references are resolved.
    It also merges an override such as ``!include:x.yaml {a: 1}`` into what is there, and keeps its
    class. So such an override replaces the value of its key.

    Arguments
    ---------
    hparams_file : str
        The YAML file.
    overrides : dict
        What to change in it.

    Returns
    -------
    text : str

    Raises
    ------
    ValueError
        If the YAML cannot be read, lacks a value, or has one that is not allowed.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.yaml"
    >>> _ = path.write_text("source: !PLACEHOLDER\\ntrain_csv: !ref <source>/a.csv")
    >>> resolve(path, {"source": "/x<y> #1"})
    "source: '/x<y> #1'\\ntrain_csv: '/x<y> #1/a.csv'\\n"
    """
    document = read_yaml(hparams_file)
    overrides = dict(overrides or {})
    for key, value in list(overrides.items()):
        if isinstance(value, CommentedMap) and tag_of(value):
            document[key] = overrides.pop(key)
    for key, value in document.items():
        if tag_of(value) == "!PLACEHOLDER" and key not in overrides:
            raise ValueError(f"{hparams_file} leaves {key}: to you; add --{key} <value>")
    try:
        add_defaults(document, overrides)
    except ValueError as error:
        raise ValueError(f"{hparams_file}: {error}") from error
    texts = {}
    mark = uuid.uuid4().hex

    def stand_in(value: str) -> str:
        texts[name := f"text_{mark}_{len(texts)}_"] = value
        return name

    changes = _map_texts(copy.deepcopy(overrides), stand_in)
    complete = io.StringIO()
    complete.name = str(hparams_file)  # which !include: starts from
    ruamel.yaml.YAML().dump(document, complete)
    complete.seek(0)
    try:
        resolved = resolve_references(complete, changes)
    except (*WRONG_ARGUMENT, YAMLError) as error:
        raise ValueError(f"{hparams_file}: {_one_line(*(error.args or [error]))}") from error
    name = re.compile(f"text_{mark}_[0-9]+_")
    tree = ruamel.yaml.YAML().load(resolved)
    tree = _map_texts(tree, lambda value: name.sub(lambda found: texts[found[0]], value))
    _check_ranges(tree, hparams_file)
    text = io.StringIO()
    ruamel.yaml.YAML().dump(tree, text)
    return text.getvalue()


def write_hparams(
    folder: str | os.PathLike[str],
    hparams_file: str | os.PathLike[str],
    overrides: Mapping[str, Any] | None,
) -> None:
    """Writes the YAML as ``hyperparams.yaml`` into a run's folder, on the main process.

    It has every key in force, defaults included, with all references resolved.

    (``speechbrain.create_experiment_directory`` of 1.1.2 would look for references in the texts of
    the overrides, see ``resolve``.)

    Arguments
    ---------
    folder : str
        The folder of the run.
    hparams_file : str
        The YAML file.
    overrides : dict
        What the command line changes in it.
    """
    text = resolve(hparams_file, overrides)
    source = os.path.abspath(hparams_file)
    header = f"# Generated {datetime.date.today()} from:\n# {source}\n# yamllint disable\n"

    def write_resolved() -> None:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, HPARAMS), "w", encoding="utf-8") as file:
            file.write(header + text)

    on_main_process(write_resolved)


def _one_line(*parts: Any) -> str:
    return " ".join(" ".join(map(str, parts)).split())


def _map_texts(node: Any, function: Callable[[str], str]) -> Any:
    """Replaces every text in a tree of dictionaries and lists, in place where it can."""
    if isinstance(node, (str, os.PathLike)):
        return function(str(node))
    if isinstance(node, (dict, list)):
        for key in node if isinstance(node, dict) else range(len(node)):
            node[key] = _map_texts(node[key], function)
    return node


def _check_ranges(tree: CommentedMap, hparams_file: str | os.PathLike[str]) -> None:
    """Checks plain values, before any object is built."""
    plain = {k: v for k, v in tree.items() if not isinstance(v, (TaggedScalar, CommentedMap))}
    try:
        refuse_old_modules(tag_of(tree.get("brain_class")), tree.get("modules") or ())
        check_single_values(plain, {**REFERENCED, **OPTIONS, **keys_read(tree)})
    except ValueError as error:
        raise ValueError(f"{hparams_file}: {error}") from error


class KeyLoader(ruamel.yaml.Loader):
    """Loads YAML; turns a constructor's error into a ValueError that names the line."""

    @override
    def construct_object(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().construct_object(node, *args, **kwargs)
        except WRONG_ARGUMENT as error:
            tag = str(getattr(node, "tag", ""))
            if isinstance(error, ConstructionError) or not tag.startswith(("!new:", "!apply:")):
                raise
            raise ConstructionError(tag, node.start_mark.line, error) from error


class ConstructionError(ValueError):
    """The error of a constructor, and the line of its arguments."""

    def __init__(self, tag: str, line: int, error: Exception):
        self.line = line
        reason = _one_line(*error.args) or type(error).__name__
        name = tag.split(":")[1]
        self.is_clear = isinstance(error, ValueError) and name.startswith("brainquant.")
        super().__init__(reason if self.is_clear else f"{name} refuses its arguments: {reason}")


def build(text: str, hparams_file: str | os.PathLike[str]) -> dict[str, Any]:
    """The objects of a resolved YAML.

    Arguments
    ---------
    text : str
        What ``resolve`` gives.
    hparams_file : str
        The file that it comes from, for errors.

    Returns
    -------
    hparams : dict

    Raises
    ------
    ValueError
        If an object cannot be built.

    Example
    -------
    >>> build("drop: !new:torch.nn.Dropout\\n  p: 1.5", "x.yaml")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: x.yaml: drop: torch.nn.Dropout refuses its arguments: dropout probability has to ...
    """
    try:
        return load_hyperpyyaml(io.StringIO(text), loader=KeyLoader)
    except ConstructionError as error:
        if error.is_clear:  # our own errors name the key
            raise ValueError(str(error)) from error
        above = text.splitlines()[error.line :: -1]
        key = next(match[0] for line in above if (match := re.match(r"\w+", line)))
        raise ValueError(f"{hparams_file}: {key}: {error}") from error
    except YAMLError as error:  # an unknown tag
        raise ValueError(f"{hparams_file}: {_one_line(error)}") from error
