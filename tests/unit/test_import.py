"""Importing and building quantisers leaves the global random numbers alone, and loads little."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from brainquant.functional.imports import import_late

ROOT = Path(__file__).resolve().parents[2]

# In a process of its own: here, everything is imported already.
PROGRAM = """
import importlib, json, pkgutil, random, sys
import numpy, torch

def drawn():
    numbers = random.getstate(), numpy.random.get_state(), torch.get_rng_state().tolist()
    return dict(zip(("random", "numpy", "torch"), map(str, numbers)))

def note(what):
    global before
    now = drawn()
    report["drew"] += [f"{name}: {what}" for name in now if now[name] != before[name]]
    before = now

report, before, torchs = {"drew": []}, drawn(), set(sys.modules)
import brainquant
brainquant.RandomProjectionQuantizer  # loads all quantisers
report["loaded"] = sorted({name.split(".")[0] for name in set(sys.modules) - torchs})
for module in pkgutil.walk_packages(brainquant.__path__, "brainquant."):
    if module.name != "brainquant.search.gpu":  # needs a GPU's library
        importlib.import_module(module.name)
    note(module.name)

from speechbrain.nnet import quantisers as stock
for name, sizes in {
    "RandomProjectionQuantizer": (12, 4, 16),
    "GumbelVectorQuantizer": (12, 10, (2.0, 0.25, 0.9), 2, 8),
}.items():
    numbers = torch.get_rng_state()
    getattr(stock, name)(*sizes)
    before = drawn()
    torch.set_rng_state(numbers)
    getattr(brainquant, name)(*sizes)
    note(f"{name}, other numbers than SpeechBrain's")
for build in (
    lambda: brainquant.RandomProjectionQuantizer(12, 4, 16, seed=0, whiten=True),
    lambda: brainquant.VectorQuantizer(12, 10, 2, 8),
    lambda: brainquant.KMeansQuantizer(12, torch.zeros(3, 12)),
    lambda: brainquant.LibraryQuantizer(12, 8, "ResidualVQ", codebook_size=4, num_quantizers=2),
):
    quantiser = build()
    note(f"building {type(quantiser).__name__}")
    x = torch.randn(2, 100, 12, generator=torch.Generator())
    if quantiser.frames_to_fit:
        quantiser.fit(x.flatten(0, 1))
    quantiser.encode(x)
    if quantiser.vq_dim is not None:
        quantiser(x, generator=torch.Generator())
    note(f"{type(quantiser).__name__} at work")
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report():
    done = subprocess.run([sys.executable, "-c", PROGRAM], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_no_import_no_build_and_no_forward_draws_from_global_generators(report):
    assert report["drew"] == []


def test_brainquant_loads_no_library_beside_torch_but_safetensors(report):
    ours = set(report["loaded"]) - set(sys.stdlib_module_names)
    assert ours <= {"brainquant", "safetensors"}


def test_an_import_that_draws_is_undone(monkeypatch, tmp_path):
    (tmp_path / "draws_at_import.py").write_text("import random; number = random.random()")
    monkeypatch.syspath_prepend(tmp_path)
    before = random.getstate()
    first = import_late("draws_at_import").number
    assert random.getstate() == before and random.random() == first


@pytest.fixture
def broken_torchaudio(tmp_path):
    """An environment whose torchaudio fails as 2.11.1 does beside torch 2.11.0."""
    (tmp_path / "torchaudio.py").write_text("raise OSError('undefined symbol: torch_x\\nmore')")
    information = tmp_path / "torchaudio-2.11.1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: torchaudio\nVersion: 7.8\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


@pytest.mark.parametrize(
    "program",
    [
        "import brainquant.data.manifests",
        "import sys; from brainquant.cli import main; main(sys.argv[1:])",
    ],
    ids=["import", "command"],
)
def test_a_torchaudio_that_does_not_load_beside_torch_is_named_in_one_line(
    broken_torchaudio, program
):
    command = [sys.executable, "-c", program, "shards", "a.csv", "--data_folder=.", "--output=."]
    done = subprocess.run(command, text=True, capture_output=True, env=broken_torchaudio)
    *others, line = done.stderr.splitlines()
    versions = f"torch {torch.__version__} and torchaudio 7.8 do not work together"
    assert done.returncode == 1 and f"{versions} (undefined symbol: torch_x); install" in line
    assert line.startswith("ImportError: ") if others else line.startswith("error: ")
    assert (others == []) == program.startswith("import sys")
