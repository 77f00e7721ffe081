"""What the command line changes in a YAML: paths and texts arrive as typed, the rest is YAML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import ruamel.yaml
from ruamel.yaml.error import YAMLError

from .defaults import tag_of
from .keys import ALL

# hyperpyyaml's tags: a value that begins with one is YAML, even for a path.
TAG = re.compile(r"!(ref|copy|new:|name:|apply:|applyref:|include:|module:)")


def read_overrides(arguments: Iterable[str], document: Mapping[str, Any]) -> dict[str, Any]:
    """Values by key, from the part of a command line that is no option of SpeechBrain.

    Arguments
    ---------
    arguments : iterable of str
        ``--key value`` or ``--key=value``, as the shell gives them.
    document : dict
        The YAML, with its tags.

    Returns
    -------
    overrides : dict
        A path or another text is as it was typed, unless it is ``null`` or begins with a tag of
        hyperpyyaml, as ``!ref <data_folder>/a.csv`` does. All other values are read as YAML.

    Raises
    ------
    ValueError
        If a value is missing, is there twice, or cannot be read.

    Example
    -------
    >>> document = {"source": "a", "seed": 1, "name": "x"}
    >>> read_overrides(["--source", "/data/talks #1", "--seed=7", "--name=2024"], document)
    {'source': '/data/talks #1', 'seed': 7, 'name': '2024'}
    """
    overrides = {}
    for key, values in _by_key(arguments):
        if key in overrides:
            raise ValueError(f"--{key} is there twice on the command line: keep one")
        if not values:
            raise ValueError(f"--{key} has no value: write one after it, null for none")
        overrides[key] = _read(key, values, document)
    return overrides


def _by_key(arguments: Iterable[str]) -> list[tuple[str, list[str]]]:
    pairs = []
    for argument in arguments:
        if argument.startswith("--"):
            key, equals, value = argument[2:].partition("=")
            pairs.append((key, [value] if equals else []))
        elif pairs:
            pairs[-1][1].append(argument)
        else:
            raise ValueError(f"{argument!r} follows no option: write --<key> before it")
    return pairs


def _read(key: str, values: list[str], document: Mapping[str, Any]) -> Any:
    value = " ".join(values)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"--{key} {value!r} is not UTF-8: rename what it names") from error
    if _as_typed(key, value, document):
        if len(values) > 1:
            raise ValueError(
                f"--{key} takes one value, got {len(values)}, the first are {values[0]!r} and "
                f"{values[1]!r}: put quotes around a text with spaces"
            )
        return value
    try:
        read = ruamel.yaml.YAML().load(value)
    except YAMLError as error:
        reason = getattr(error, "problem", None) or "it cannot be read"
        raise ValueError(
            f"--{key} {value!r} is no YAML ({reason}): write it as it would stand in the YAML, a "
            f"text in quotes"
        ) from error
    unknown = tag_of(document.get(key)) == "!PLACEHOLDER"
    return value if unknown and isinstance(read, str) and value[0] not in "'\"" else read


def _as_typed(key: str, value: str, document: Mapping[str, Any]) -> bool:
    if value == "null" or TAG.match(value):
        return False
    is_list = re.fullmatch(r"\[.*\]", value) and key in ALL and ALL[key].kind == "texts"
    return is_text(key, document) and not is_list


def is_text(key: str, document: Mapping[str, Any]) -> bool:
    """Whether the value of a key is a text, by the table of keys or else by its value in the YAML.

    Example
    -------
    >>> document = ruamel.yaml.YAML().load("a: x\\nb: !ref <a>/m.csv\\nc: 3\\nd: !ref <c> // 2")
    >>> [is_text(key, document) for key in ("a", "b", "c", "d", "source")]
    [True, True, False, False, True]
    """
    if key in ALL:
        return ALL[key].kind in ("text", "texts")
    value = document.get(key)
    if tag_of(value) not in ("!ref", "!copy"):
        return isinstance(value, str) and not tag_of(value)
    expression = str(getattr(value, "value", ""))
    if re.search(r"[^\W\d]", re.sub(r"<[^>]*>", "", expression)):
        return True  # it has more than references and arithmetic
    others = {name: document[name] for name in document if name != key}
    return any(is_text(name, others) for name in re.findall(r"<(\w+)>", expression))
