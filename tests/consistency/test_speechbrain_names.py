"""What brainquant overrides and reads of SpeechBrain exists in the installed SpeechBrain.

A method of ours whose counterpart was renamed there would never be called, without a word.
"""

import ast
import importlib
import inspect
import pkgutil
import sys
from pathlib import Path

import pytest

import brainquant

MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(brainquant.__path__, "brainquant.")
    if module.name != "brainquant.search.gpu"  # needs a GPU's library
]
CLASSES = [
    value
    for module in MODULES
    for value in vars(module).values()
    if inspect.isclass(value) and value.__module__ == module.__name__
]


def is_speechbrains(a_class):
    return a_class.__module__.startswith("speechbrain.")


DERIVED = [one for one in CLASSES if any(map(is_speechbrains, one.__mro__))]


def methods(a_class):
    """Names of a class's own methods and properties, and whether they are marked."""
    for name, value in vars(a_class).items():
        function = getattr(value, "fget", None) or getattr(value, "__func__", value)
        if inspect.isfunction(function) and not name.startswith("__") and name != "forward":
            yield name, getattr(function, "__override__", False)


@pytest.mark.parametrize("a_class", DERIVED, ids=lambda one: one.__name__)
def test_what_is_marked_as_an_override_overrides_something(a_class):
    bases = a_class.__mro__[1:]
    marked = [name for name, is_marked in methods(a_class) if is_marked]
    assert [name for name in marked if not any(name in vars(base) for base in bases)] == []


@pytest.mark.parametrize("a_class", DERIVED, ids=lambda one: one.__name__)
def test_what_overrides_a_name_of_speechbrain_is_marked(a_class):
    """The mark is what a renamed counterpart is found by."""
    theirs = {name for base in a_class.__mro__ if is_speechbrains(base) for name in vars(base)}
    assert [name for name, marked in methods(a_class) if name in theirs and not marked] == []


def defined_names():
    """All names that brainquant gives to something."""
    for module in MODULES:
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                yield node.attr
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def private_reads():
    """Reads of ``self._name`` and ``Name._name`` that no code of brainquant defines."""
    # The methods of NamedTuple are public, whatever their names look like.
    ours = {*defined_names(), "_asdict", "_replace", "_make", "_fields"}
    for module in MODULES:
        tree = ast.parse(inspect.getsource(module))
        scopes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        for scope in [tree, *scopes]:
            for node in ast.walk(scope):
                if (
                    isinstance(node, ast.Attribute)
                    and isinstance(node.value, ast.Name)
                    and node.attr.startswith("_")
                    and not node.attr.startswith("__")
                    and node.attr not in ours
                ):
                    if node.value.id != "self":
                        yield vars(module).get(node.value.id), node.attr
                    elif scope is not tree:
                        yield vars(module)[scope.name], node.attr


READS = sorted(
    {
        (owner, name)
        for owner, name in private_reads()
        if getattr(owner, "__name__", "") not in sys.stdlib_module_names
    },
    key=str,
)


@pytest.mark.parametrize("owner, name", READS, ids=lambda one: getattr(one, "__name__", str(one)))
def test_a_private_name_that_is_read_exists(owner, name):
    assert owner is not None, f"{name} is read of something that is no class: read it of a class"
    sources = [
        Path(inspect.getfile(base)).read_text("utf-8")
        for base in getattr(owner, "__mro__", ())  # a module has none
        if is_speechbrains(base)
    ]
    assert hasattr(owner, name) or any(f"self.{name} = " in source for source in sources)


def test_there_is_something_to_check():
    assert len(DERIVED) > 10 and len(READS) > 1
