"""Importing and building quantisers leaves the global random numbers alone, and loads little."""

import json
import random
import subprocess
import sys

import pytest

from brainquant.functional.imports import import_late

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
