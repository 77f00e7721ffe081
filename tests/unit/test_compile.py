"""The two quantisers under torch.compile and torch.export."""

import io

import pytest
import torch

from brainquant import GumbelVectorQuantizer, RandomProjectionQuantizer

MAKE = {
    "random projection": lambda: RandomProjectionQuantizer(12, 4, 32, seed=0),
    "several codebooks": lambda: RandomProjectionQuantizer(12, 4, 32, num_codebooks=3, seed=0),
    "gumbel": lambda: GumbelVectorQuantizer(12, 10, (2.0, 0.5, 0.9), 2, 8),
    "deep gumbel": lambda: GumbelVectorQuantizer(
        12, 10, (2.0, 0.5, 0.9), 2, 8, combine_groups=True, weight_proj_depth=2
    ),
}


# The forward of a random projection is the same in train() and eval(): see check_modes.
CASES = [
    (name, training) for name in MAKE for training in (True, False) if training or "gumbel" in name
]


def randn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def results(module, x):
    """Tensors that a quantiser gives, and the gradients of those that have one."""
    x = x.clone().requires_grad_()
    torch.manual_seed(5)  # of the Gumbel noise
    output = module(x)
    if isinstance(output, torch.Tensor):
        return [output]
    gradients = torch.autograd.grad(output["x"].sin().sum() + output["prob_perplex"], x)
    return [output["x"], output["code_perplexity"], *gradients]


@pytest.mark.parametrize("name, training", CASES)
def test_compiled_as_one_graph_they_give_the_same(name, training):
    torch.manual_seed(0)
    quantiser = MAKE[name]().train(training)
    torch._dynamo.reset()
    # Without a C++ compiler; what the graphs hold is what the default backend gets.
    compiled = torch.compile(quantiser, fullgraph=True, backend="aot_eager", dynamic=True)
    for step, shape in enumerate([(2, 7, 12), (3, 5, 12), (1, 9, 12)]):
        quantiser.update_temp(step)
        x = randn(step, *shape)
        torch.testing.assert_close(results(compiled, x), results(quantiser, x))


@pytest.mark.parametrize("name, training", CASES)
def test_exported_saved_and_loaded_they_give_the_same_for_any_batch(name, training):
    torch.manual_seed(0)
    quantiser = MAKE[name]().train(training)
    sizes = {"x": {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}}
    exported = torch.export.export(quantiser, (randn(0, 2, 7, 12),), dynamic_shapes=sizes)
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    x = randn(1, 4, 9, 12)
    torch.testing.assert_close(results(loaded, x), results(quantiser, x))
