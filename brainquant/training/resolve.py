"""From a recipe's YAML to its objects: texts stay what they are, errors name the key."""

import copy
import datetime
import io
import os
import pydoc
import re
import uuid

import ruamel.yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml.comments import CommentedMap, TaggedScalar
from ruamel.yaml.error import YAMLError

from ..ranks import on_main_process
from .keys import OPTIONS, RECIPE, REFERENCED, check_single_values

HPARAMS = "hyperparams.yaml"  # in each run's folder, as SpeechBrain has it

# What a constructor raises at arguments that it cannot work with, besides ValueErrors.
WRONG_ARGUMENT = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


def read_yaml(hparams_file):
    """A YAML with its tags, or a ValueError that says where it cannot be read.

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
    if not isinstance(document, dict):
        raise ValueError(f"{hparams_file} has no keys: give the path of a recipe's YAML")
    return document


def resolve(hparams_file, overrides=None):
    """The YAML with its overrides and without references, as text; its ranges are checked.

    hyperpyyaml 1.2.3 looks for references in values that were referred to, and takes ``2024/7``
    for a division: here the texts of the overrides are put in when the references are resolved.

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
        Where the YAML cannot be read, lacks a value, or has one that is not allowed.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.yaml"
    >>> _ = path.write_text("source: !PLACEHOLDER\\ntrain_csv: !ref <source>/a.csv")
    >>> resolve(path, {"source": "/x<y> #1"})
    "source: '/x<y> #1'\\ntrain_csv: '/x<y> #1/a.csv'\\n"
    """
    document = read_yaml(hparams_file)
    for key, value in document.items():
        tag = getattr(getattr(value, "tag", None), "value", None)
        if tag == "!PLACEHOLDER" and key not in (overrides or {}):
            raise ValueError(f"{hparams_file} leaves {key}: to you; add --{key} <value>")
    texts = {}
    mark = uuid.uuid4().hex

    def stand_in(value):
        texts[name := f"text_{mark}_{len(texts)}_"] = value
        return name

    overrides = _map_texts(copy.deepcopy(overrides or {}), stand_in)
    with open(hparams_file, encoding="utf-8") as file:
        try:
            resolved = resolve_references(file, overrides)
        except (*WRONG_ARGUMENT, YAMLError) as error:  # of what refers, includes or overrides
            raise ValueError(f"{hparams_file}: {_one_line(*(error.args or [error]))}") from error
    name = re.compile(f"text_{mark}_[0-9]+_")
    tree = ruamel.yaml.YAML().load(resolved)
    tree = _map_texts(tree, lambda value: name.sub(lambda found: texts[found[0]], value))
    _check_ranges(tree, hparams_file)
    text = io.StringIO()
    ruamel.yaml.YAML().dump(tree, text)
    return text.getvalue()


def write_hparams(folder, hparams_file, overrides):
    """Writes the resolved YAML into a run's folder, as ``hyperparams.yaml``, on the main process.

    ``speechbrain.create_experiment_directory`` (1.1.2) would look for references in the texts of
    the overrides, see ``resolve``.

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

    def write_resolved():
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, HPARAMS), "w", encoding="utf-8") as file:
            file.write(header + text)

    on_main_process(write_resolved)


def _one_line(*parts):
    return " ".join(" ".join(map(str, parts)).split())


def _map_texts(node, function):
    """Replaces every text in a tree of dictionaries and lists, in place where it can."""
    if isinstance(node, (str, os.PathLike)):
        return function(str(node))
    if isinstance(node, (dict, list)):
        for key in node if isinstance(node, dict) else range(len(node)):
            node[key] = _map_texts(node[key], function)
    return node


def _check_ranges(tree, hparams_file):
    """Checks what is known before any object is built."""
    plain = {k: v for k, v in tree.items() if not isinstance(v, (TaggedScalar, CommentedMap))}
    tag = getattr(getattr(tree.get("brain_class"), "tag", None), "value", None) or ""
    brain = pydoc.locate(tag.removeprefix("!name:")) if tag else None
    read = getattr(brain, "hparams_read", {})
    try:
        check_single_values(plain, {**REFERENCED, **OPTIONS, **RECIPE, **read})
    except ValueError as error:
        raise ValueError(f"{hparams_file}: {error}") from error


class KeyLoader(ruamel.yaml.Loader):
    """Loads YAML; an error of a constructor becomes a ValueError that names the key."""

    def construct_object(self, node, *args, **kwargs):
        try:
            return super().construct_object(node, *args, **kwargs)
        except WRONG_ARGUMENT as error:
            tag = str(getattr(node, "tag", ""))
            if isinstance(error, ConstructionError) or not tag.startswith(("!new:", "!apply:")):
                raise
            raise ConstructionError(tag, node.start_mark.line, error) from error


class ConstructionError(ValueError):
    """What a constructor made of its arguments, and the line that they stand in."""

    def __init__(self, tag, line, error):
        self.line = line
        reason = _one_line(*error.args) or type(error).__name__
        name = tag.split(":")[1]
        self.is_clear = isinstance(error, ValueError) and name.startswith("brainquant.")
        super().__init__(reason if self.is_clear else f"{name} refuses its arguments: {reason}")


def build(text, hparams_file):
    """The objects of a resolved YAML.

    Arguments
    ---------
    text : str
        What ``resolve`` gives.
    hparams_file : str
        Where it comes from, for errors.

    Returns
    -------
    hparams : dict

    Raises
    ------
    ValueError
        Where an object cannot be built.

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
    except YAMLError as error:  # of a tag that nothing knows
        raise ValueError(f"{hparams_file}: {_one_line(error)}") from error
