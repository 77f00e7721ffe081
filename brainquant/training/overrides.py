"""What the command line changes in a YAML: paths and texts arrive as typed, the rest is YAML."""

import re

import ruamel.yaml
from ruamel.yaml.error import YAMLError

from .keys import ALL

# hyperpyyaml's tags: what begins with one is YAML, even for a path.
TAG = re.compile(r"!(ref|copy|new:|name:|apply:|applyref:|include:|module:)")


def read_overrides(arguments, document):
    """Values by key of what SpeechBrain's own options leave of a command line.

    Arguments
    ---------
    arguments : list of str
        ``--key value`` or ``--key=value``, as the shell gives them.
    document : dict
        The YAML, with its tags.

    Returns
    -------
    overrides : dict
        Of a key whose value is a path or another text, the text as it was typed; ``null`` is no
        text, and neither is what begins with a tag of hyperpyyaml, as ``!ref <data_folder>/a.csv``.
        Of the other keys, what YAML makes of the text.

    Raises
    ------
    ValueError
        Where a value is missing, is doubled, or cannot be read.

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


def _by_key(arguments):
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


def _read(key, values, document):
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
    unknown = getattr(getattr(document.get(key), "tag", None), "value", "") == "!PLACEHOLDER"
    return value if unknown and isinstance(read, str) and value[0] not in "'\"" else read


def _as_typed(key, value, document):
    if value == "null" or TAG.match(value):
        return False
    is_list = re.fullmatch(r"\[.*\]", value) and key in ALL and ALL[key].kind == "texts"
    return is_text(key, document) and not is_list


def is_text(key, document):
    """Whether the value of a key is a text: by the table of keys, or by its value in the YAML.

    Example
    -------
    >>> document = ruamel.yaml.YAML().load("a: x\\nb: !ref <a>/m.csv\\nc: 3\\nd: !ref <c> // 2")
    >>> [is_text(key, document) for key in ("a", "b", "c", "d", "source")]
    [True, True, False, False, True]
    """
    if key in ALL:
        return ALL[key].kind in ("text", "texts")
    value = document.get(key)
    tag = getattr(getattr(value, "tag", None), "value", None)
    if tag not in ("!ref", "!copy"):
        return isinstance(value, str) and tag is None
    if re.search(r"[^\W\d]", re.sub(r"<[^>]*>", "", value.value)):
        return True  # more than references and arithmetic
    others = {name: document[name] for name in document if name != key}
    return any(is_text(name, others) for name in re.findall(r"<(\w+)>", value.value))
