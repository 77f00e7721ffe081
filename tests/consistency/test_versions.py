"""setup.cfg, the constraints and CI name the same versions."""

import configparser
import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import brainquant

ROOT = Path(__file__).resolve().parents[2]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
TOOLS = {"ruff", "pyright", "setuptools"}  # ruff and pyright are of one version, for all


def requirements(text):
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [Requirement(line) for line in lines]


EXTRAS = [extra for extra in SETUP["options.extras_require"] if extra not in ("benchmark", "docs")]
ADMITTED = {
    requirement.name: requirement
    for text in [
        SETUP["options"]["install_requires"],
        *[SETUP["options.extras_require"][extra] for extra in EXTRAS],
    ]
    for requirement in requirements(text)
    if requirement.name not in TOOLS
}
LOWEST = {
    requirement.name: requirement
    for requirement in requirements((ROOT / "tests/constraints/lowest.txt").read_text("utf-8"))
}


@pytest.mark.parametrize("name", sorted(ADMITTED))
def test_the_constraints_have_the_lower_bound_of_every_dependency(name):
    bounds = [part.version for part in ADMITTED[name].specifier if part.operator == ">="]
    (pinned,) = LOWEST[name].specifier
    assert pinned.operator == "==" and [Version(pinned.version)] == [Version(v) for v in bounds]


def test_the_constraints_name_nothing_else():
    assert LOWEST.keys() == ADMITTED.keys()


def test_ci_runs_the_pythons_that_the_package_names():
    pythons = re.findall(r"Python :: (3\.\d+)$", SETUP["metadata"]["classifiers"], re.MULTILINE)
    assert WORKFLOW["jobs"]["tests"]["strategy"]["matrix"]["python"] == pythons
    assert SETUP["options"]["python_requires"] == f">={pythons[0]}"


def test_ci_calls_steps_that_the_script_has():
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    steps = re.findall(r"^(\w+)\(\) \{$", script, re.MULTILINE)
    assert f"set -- {' '.join(steps)}\n" in script
    assert {*WORKFLOW["jobs"]["checks"]["strategy"]["matrix"]["step"], "tests"} == {*steps}


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == brainquant.__version__
