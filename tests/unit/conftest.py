"""What several test files measure with."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest
import torch
from speechbrain.utils.importutils import LazyModule
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "tests" / "benchmarks"

# hypothesis asks each module for its file; SpeechBrain's redirects of old names would then
# import what they redirect to, and fail for want of k2.
LazyModule.__file__ = None

hypothesis.settings.register_profile("unit", deadline=None, max_examples=30, derandomize=True)
hypothesis.settings.load_profile("unit")


class LargestTensor(TorchDispatchMode):
    """Remembers the elements of the largest tensor that any operation gives."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return result


@pytest.fixture
def largest_tensor():
    """A context that measures the largest tensor made in it, in forward and backward."""
    return LargestTensor


@pytest.fixture
def extra_mb():
    """Megabytes that an expression adds at its peak to a process of its own, after some lines."""
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
    """A context that fails where the global random numbers move on."""
    return _untouched_global_rng


@pytest.fixture
def tf32_allowed():
    """What ``import speechbrain.core`` sets, and back."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = True
    yield
    matmul.allow_tf32 = before
