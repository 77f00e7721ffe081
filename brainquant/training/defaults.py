"""Adds to a recipe's YAML the defaults of all keys that it does not state."""

from __future__ import annotations

import pydoc
import re
from collections.abc import Iterator, Mapping
from typing import Any

import ruamel.yaml
from ruamel.yaml.comments import CommentedMap

from .keys import OPTIONS, RECIPE, REFERENCED
from .ranges import REQUIRED, InYaml, Key

SET_SEED = InYaml("!apply:speechbrain.utils.seed_everything [!ref <seed>]")


def add_defaults(document: CommentedMap, overrides: Mapping[str, Any] | None = None) -> None:
    """Adds every key that the Brain of a YAML, its loaders and SpeechBrain read.

    So the values in force are in one place: they are logged, written into the folder of the run,
    and compared when it resumes. A YAML of an earlier version, which lacks a newer key, gets the
    default of that key. Keys without a default are not added.

    Arguments
    ---------
    document : CommentedMap
        A YAML as ruamel.yaml reads it, with its tags; it is changed. Without ``brain_class:`` it
        is no recipe and gets nothing.
    overrides : dict
        Values of the command line, which may name another Brain.

    Raises
    ------
    ValueError
        If a default refers to a key without a default that the YAML lacks.

    Example
    -------
    >>> text = "brain_class: !name:brainquant.brains.BestRQBrain\\noptimizer_step_limit: 500\\n"
    >>> document = ruamel.yaml.YAML().load(f"{text}output_folder: x")
    >>> add_defaults(document)
    >>> document["log_interval"], document["warmup_steps"].value
    (100, '<optimizer_step_limit> // 10')
    """
    if "brain_class" not in document:
        return
    read = keys_read(document, overrides)
    if "ckpt_interval_steps" in document:  # SpeechBrain refuses to have both
        read.pop("ckpt_interval_minutes", None)
    defaults = {
        name: key.default
        for name, key in (REFERENCED | OPTIONS | read).items()
        if key.default is not REQUIRED
    }
    for name in sorted(read.keys() | references([document, overrides])):
        _add(document, name, defaults)
    if "__set_seed" not in document:  # before the first module is built
        document.insert(0, "__set_seed", _from_yaml(SET_SEED))


def _add(document: CommentedMap, name: str, defaults: Mapping[str, Any]) -> None:
    """Adds a key after those that it refers to: hyperpyyaml resolves references from the top."""
    if name in document or name not in defaults:
        return
    value, position = defaults[name], 0
    if isinstance(value, InYaml):
        value = _from_yaml(value)
        others = sorted(references(value))
        for other in others:
            _add(document, other, defaults)
            if other not in document:
                raise ValueError(
                    f"the YAML lacks the key {other!r}, to which the default of {name!r} refers: "
                    f"add it"
                )
        position = 1 + max(map(list(document).index, others))
    document.insert(position, name, value)


def keys_read(
    document: Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> dict[str, Key]:
    """The keys that code reads of a YAML, with those options of SpeechBrain that have a default."""
    options = {name: key for name, key in OPTIONS.items() if key.default is not REQUIRED}
    value = {**document, **(overrides or {})}.get("brain_class")
    brain = pydoc.locate(tag_of(value).removeprefix("!name:")) if tag_of(value) else value
    return {**options, **RECIPE, **getattr(brain, "hparams_read", {})}


def tag_of(value: Any) -> str:
    """The tag of a value that ruamel.yaml has read, or "".

    Example
    -------
    >>> tag_of(ruamel.yaml.YAML().load("a: !ref <b>")["a"]), tag_of(3)
    ('!ref', '')
    """
    return getattr(getattr(value, "tag", None), "value", None) or ""


def references(node: Any, seen: set[int] | None = None) -> set[str]:
    """The keys that ``!ref`` and ``!copy`` in a tree refer to.

    Example
    -------
    >>> sorted(references(ruamel.yaml.YAML().load("a: [!ref <b> - <c.d>, <e>]")))
    ['b', 'c']
    """
    seen = set() if seen is None else seen
    if isinstance(node, (dict, list)):
        if id(node) in seen:  # an anchor leads to it again
            return set()
        seen.add(id(node))
        return set().union(*(references(child, seen) for child in _children(node)))
    if tag_of(node) in ("!ref", "!copy"):
        return set(re.findall(r"<(\w+)", node.value))
    return set()


def _children(node: dict[str, Any] | list[Any]) -> Iterator[Any]:
    yield from node.values() if isinstance(node, dict) else node


def _from_yaml(text: InYaml) -> Any:
    return ruamel.yaml.YAML().load(f"x: {text}")["x"]
