"""Fixtures that several test files share."""

import csv
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import soundfile
import torch
from speechbrain.utils.importutils import LazyModule
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from brainquant.data.own_speech import prepare_own_speech

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "tests" / "benchmarks"

# hypothesis reads __file__ of each module. SpeechBrain's modules for old names would then import
# the new ones, and this fails without k2.
LazyModule.__file__ = None

hypothesis.settings.register_profile("unit", deadline=None, max_examples=30, derandomize=True)
hypothesis.settings.load_profile("unit")


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest result, with memory, of any operation."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and not isinstance(leaf, FakeTensor):
                self.elements = max(self.elements, leaf.numel())
        return result


@pytest.fixture
def largest_tensor():
    """A context that measures the largest tensor in it, in forward and backward."""
    return LargestTensor


@pytest.fixture
def extra_mb():
    """Measures the megabytes at the peak of an expression, in a process of its own."""
    if sys.platform != "linux":
        pytest.skip("reads the peak from /proc")

    def measure(lines, expression):
        call = f"from measure import extra_mb; print(extra_mb(lambda: {expression}))"
        done = subprocess.run(
            [sys.executable, "-c", f"{lines}\n{call}"],
            text=True,
            capture_output=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(BENCHMARKS)])},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return float(done.stdout)

    return measure


@contextmanager
def _untouched_global_rng():
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def untouched_global_rng():
    """A context that fails if anything draws from the global generator."""
    return _untouched_global_rng


@pytest.fixture
def tf32_allowed():
    """Allows TF32, as ``import speechbrain.core`` does, until the end of the test."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = True
    yield
    matmul.allow_tf32 = before


def _rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def speech(tmp_path):
    """Writes some seconds of noise into a file of the folder ``speech``."""

    def write(name, seconds=1.5, rate=16000, channels=1, **options):
        path = tmp_path / "speech" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        noise = np.random.default_rng(len(name)).uniform(-0.5, 0.5, (int(seconds * rate), channels))
        soundfile.write(path, noise, rate, **options)
        return path

    write.folder = tmp_path / "speech"
    write.folder.mkdir()
    return write


@pytest.fixture
def prepare(speech, tmp_path):
    """Prepares the folder ``speech`` or another source and returns the rows of both manifests."""

    def run(source=speech.folder, folder=tmp_path / "manifests", **settings):
        prepare_own_speech(str(source), str(folder), **{"num_workers": 2, **settings})
        return _rows_of(folder / "train.csv"), _rows_of(folder / "valid.csv")

    def left_out():
        """Reasons by path."""
        rows = _rows_of(tmp_path / "manifests" / "left_out.csv")
        return {row["wav"]: row["reason"] for row in rows}

    run.left_out = left_out
    return run
