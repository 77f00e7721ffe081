"""Between log points no step waits for the device: by construction here, and on a GPU counted."""

import traceback

import pytest
import torch
from tiny_run import build, fit
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from brainquant.brains import masked_codes, online_codebooks, wav2vec2
from brainquant.data.batches import AudioBatch
from brainquant.functional.transfer import to_device
from brainquant.training.steps import GradientStep

aten = torch.ops.aten
# What gives numbers, or shapes that depend on numbers: on a GPU the program waits for them.
WAITING = {
    aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select,
    aten.bincount, aten.unique_dim, aten._unique, aten._unique2, aten.repeat_interleave,
}  # fmt: skip
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
# Those of the library wait, see docs/explanation/scaling.md: it may see finite frames only.
RUNS = [
    ("wav2vec2", "gumbel"),
    ("wav2vec2", "vector"),
    ("best_rq", "whitened_projection"),
    ("best_rq", "random_projection_multi"),
    ("best_rq", "gumbel"),
    ("online_codebooks", "online_codebooks"),
]


class Device(TorchDispatchMode):
    """Follows what would be on a GPU, storage by storage, and notes where it is waited for."""

    def __init__(self, tensors):
        super().__init__()
        self.storages = {}
        self.waits = []
        self.watching = False
        self.put(tensors)

    def put(self, tensors):
        """Puts tensors on this device."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self.storages[storage._cdata] = storage  # kept, so that no other takes its place

    def has(self, value):
        """Whether a value is a tensor of this device."""
        return isinstance(value, torch.Tensor) and value.untyped_storage()._cdata in self.storages

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        here = [value for value in tree_leaves((args, kwargs)) if self.has(value)]
        result = function(*args, **(kwargs or {}))
        if here:
            self.put(value for value in tree_leaves(result) if isinstance(value, torch.Tensor))
            packet = function.overloadpacket
            waits = packet in WAITING
            if packet in INDEXING:
                waits = any(i is not None and i.dtype == torch.bool for i in args[1])
            if waits and self.watching:
                *_, caller, _ = traceback.extract_stack()
                self.waits.append(f"{packet} in {caller}")
        return result


@pytest.fixture
def make_brain(corpus, tmp_path):
    """A tiny run of four steps of two batches, with a quantiser of a fragment."""

    def make(name, fragment, *more):
        swap = f"--make_quantiser=!include:../../../hparams/quantisers/{fragment}.yaml"
        if name == "online_codebooks":  # the recipe's own, in small
            swap = "--make_quantiser={num_vars: 8}"
        more = {"wav2vec2": ["--normalise_targets=True"]}.get(name, []) + list(more)
        return build(
            name, corpus, tmp_path, " ".join([swap, *more]), optimizer_step_limit=4,
            log_interval=100, grad_accumulation_factor=2, batch_seconds=4,
        )  # fmt: skip

    return make


def watch_steps(monkeypatch, start, stop):
    """Calls start before the third step and stop in the fourth: codebooks may start before."""
    take, calls = GradientStep.take, []

    def taken(steps, number):
        if number == 4:
            stop()
        take(steps, number)
        if number == 2:
            start()
        calls.append(1)

    monkeypatch.setattr(GradientStep, "take", taken)
    return calls


@pytest.mark.parametrize("name, fragment", RUNS)
def test_no_step_waits_for_the_device(make_brain, monkeypatch, name, fragment):
    brain, hparams = make_brain(name, fragment)
    device = Device([*brain.modules.parameters(), *brain.modules.buffers()])

    def moved(tensor, *args):
        tensor = to_device(tensor, *args).clone()
        device.put([tensor])
        return tensor

    def batch_moved(self, *args, **kwargs):
        moved_batch = super(AudioBatch, self).to(*args, **kwargs)
        device.put([moved_batch.sig.data])
        return moved_batch

    for module in (masked_codes, online_codebooks, wav2vec2):
        monkeypatch.setattr(module, "to_device", moved)
    monkeypatch.setattr(AudioBatch, "to", batch_moved, raising=False)
    watch = [lambda: setattr(device, "watching", True), lambda: setattr(device, "watching", False)]
    steps = watch_steps(monkeypatch, *watch)
    with device:
        fit(brain, hparams)
    assert len(steps) == 4
    assert not device.waits, "\n".join(sorted(set(device.waits)))


def test_what_waits_is_seen():
    x = torch.arange(3.0)
    with Device([x]) as device:
        device.watching = True
        y = (2 * x)[1:]
        _ = (
            y[y > 3],
            float(y.sum()),
            y[torch.tensor([0])],
            torch.arange(2)[torch.tensor([True] * 2)],
        )
    assert [wait.split()[0] for wait in device.waits] == ["aten.index", "aten._local_scalar_dense"]


@pytest.mark.gpu
@pytest.mark.parametrize("name, fragment", RUNS)
def test_no_step_waits_for_a_gpu(make_brain, monkeypatch, name, fragment):
    brain, hparams = make_brain(name, fragment, "--device", "cuda:0", "--precision", "bf16")
    profiler = torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    )
    watch_steps(monkeypatch, profiler.start, profiler.stop)
    fit(brain, hparams)
    calls = [event.name for event in profiler.events() if event.name.startswith("cuda")]
    assert "cudaLaunchKernel" in calls
    waits = [name for name in calls if name.endswith("Synchronize") or name == "cudaMemcpy"]
    assert not waits[:-1], waits  # the profiler's own end waits once
