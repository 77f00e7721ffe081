"""The wheel has all that a user without a clone needs; it and the sdist are the same each time."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("brainquant", "hparams", "recipes", "setup.cfg", "setup.py", "MANIFEST.in")
BUILD = """
from setuptools import build_meta
print(build_meta.build_sdist("built"), build_meta.build_wheel("built"))
"""


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    """sdist and wheel, built twice."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "results", "data")
    built = []
    for _ in range(2):
        clone = tmp_path_factory.mktemp("clone")
        for name in (*SOURCES, "pyproject.toml", "README.md", "LICENSE"):
            if (ROOT / name).is_dir():
                keep = None if name == "brainquant" else ignored
                shutil.copytree(ROOT / name, clone / name, ignore=keep)
            else:
                shutil.copyfile(ROOT / name, clone / name)
        done = subprocess.run(
            [sys.executable, "-c", BUILD],
            cwd=clone,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
            text=True,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        built.append([clone / "built" / name for name in done.stdout.splitlines()[-1].split()])
    return built


def test_two_builds_have_the_same_bytes(builds):
    first, second = (
        [hashlib.sha256(path.read_bytes()).hexdigest() for path in build] for build in builds
    )
    assert first == second


def test_the_sdist_has_what_the_wheel_is_built_from(builds):
    with tarfile.open(builds[0][0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {*SOURCES, "pyproject.toml", "README.md", "LICENSE"} <= names
    assert "recipes/ToySpeech/hparams/best_rq.yaml" in names


@pytest.fixture(scope="module")
def site(builds, tmp_path_factory):
    """A folder that the wheel is installed in."""
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target"]
    subprocess.run([*command, site, builds[0][1]], check=True)
    return site


def test_the_links_of_its_description_work_on_an_index(site):
    (metadata,) = site.glob("*.dist-info/METADATA")
    text = metadata.read_text("utf-8")
    assert "License-Expression: Apache-2.0" in text
    assert "](docs/" not in text and "](recipes/" not in text


def test_a_recipe_copied_from_the_wheel_trains_in_an_empty_folder(site, corpus, tmp_path):
    def run(*command):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
            text=True,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    printed = run("-m", "brainquant.cli", "copy", "ToySpeech", "my_recipe").splitlines()
    command = "python my_recipe/train.py my_recipe/hparams/best_rq.yaml"
    assert command in printed
    where = "import brainquant; print(brainquant.__file__)"
    assert run("-c", where).startswith(str(site))
    options = ["--data_folder", str(corpus), "--prepare", "null", "--evaluate", "null"]
    swap = ["--make_quantiser", "!include:quantisers/random_projection_multi.yaml"]
    small = ["--num_layers", "1", "--d_model", "16", "--debug"]
    run(*command.split()[1:], *options, *swap, *small)
    (report,) = tmp_path.rglob("debug/report.html")
    assert "Loss (nats)" in report.read_text("utf-8")
