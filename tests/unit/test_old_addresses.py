"""Old addresses lead to what has moved, for one version and with a warning."""

import importlib
import pydoc
import subprocess
import sys

import pytest
from hyperpyyaml import load_hyperpyyaml

from brainquant.old_addresses import FUNCTIONS, MODULES, new_address


@pytest.fixture
def anew(monkeypatch):
    """Forgets that an old address was imported before."""

    def forget(module):
        package, _, name = f"brainquant.{module}".rpartition(".")
        monkeypatch.delitem(sys.modules, f"brainquant.{module}", raising=False)
        monkeypatch.delattr(importlib.import_module(package), name, raising=False)

    return forget


@pytest.mark.parametrize("old", MODULES)
def test_an_old_address_is_the_same_object_as_the_new(old, anew):
    if old == "functional.nearest_triton":
        pytest.importorskip("triton")
    anew(old)
    with pytest.warns(
        DeprecationWarning, match=f"brainquant.{old} is brainquant.{MODULES[old][0]}"
    ):
        importlib.import_module(f"brainquant.{old}")
    count = 0
    for new in MODULES[old]:
        module = importlib.import_module(f"brainquant.{new}")
        for name, thing in vars(module).items():
            if getattr(thing, "__module__", None) == module.__name__:
                assert pydoc.locate(f"brainquant.{old}.{name}") is thing
                assert new_address(f"brainquant.{old}.{name}") == f"brainquant.{new}.{name}"
                count += 1
    assert count


@pytest.mark.parametrize("old", FUNCTIONS)
def test_an_old_address_of_a_function_is_the_new_function(old, anew):
    anew(old)
    with pytest.warns(DeprecationWarning, match=f"{old} is brainquant.{FUNCTIONS[old]} now"):
        found = pydoc.locate(f"brainquant.{old}")
    assert callable(found) and found is pydoc.locate(f"brainquant.{FUNCTIONS[old]}")
    assert importlib.import_module("brainquant.brains").load_encoder is found


@pytest.mark.parametrize("name", ["features", "monitors"])
def test_what_was_never_there_is_not_there(name):
    assert pydoc.locate(f"brainquant.{name}.Nothing") is None
    assert pydoc.locate("brainquant.nothing") is None
    with pytest.raises(ImportError):
        importlib.import_module(f"brainquant.{name}.more")


def test_an_old_yaml_builds():
    built = load_hyperpyyaml("a: !new:brainquant.training.run_log.RunLog [x, []]")["a"]
    assert type(built).__module__ == "brainquant.monitoring.run_log"


def test_the_import_of_the_package_stays_light():
    code = "import brainquant, sys; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
