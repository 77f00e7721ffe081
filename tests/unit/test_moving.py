"""Codebooks that follow the frames: once a step, over its batches; what freezes them."""

import copy

import pytest
import torch

from brainquant import LibraryQuantizer, VectorQuantizer

KINDS = {
    "vector": lambda: VectorQuantizer(12, 10, 2, 8, decay=0.9),
    "residual": lambda: LibraryQuantizer(
        12, 8, "ResidualVQ", codebook_size=11, num_quantizers=3, kmeans_init=True,
        threshold_ema_dead_code=1.0,
    ),
    "one codebook": lambda: LibraryQuantizer(12, 8, "VectorQuantize", codebook_size=11),
}  # fmt: skip


@pytest.fixture(params=list(KINDS))
def quantiser(request):
    return KINDS[request.param]().train()


def frames(seed, batch=4, time=40):
    """They wander, and so leave codes to die."""
    return seed + torch.randn(batch, time, 12, generator=torch.Generator().manual_seed(seed))


def step(quantiser, *batches, seed=0):
    """One optimiser step with some batches; gives what each forward gave."""
    generator = torch.Generator().manual_seed(seed)
    quantiser.begin_step()
    outputs = [quantiser(batch, generator=generator, return_codes=True) for batch in batches]
    quantiser.end_step()
    return outputs


def state(quantiser):
    return {name: value.clone() for name, value in quantiser.state_dict().items()}


def assert_close(quantiser, expected):
    for name, value in quantiser.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)


def assert_same(quantiser, expected):
    for name, value in quantiser.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_accumulated_batches_are_one_batch_of_all_frames(quantiser):
    accumulated = copy.deepcopy(quantiser)
    for number in range(4):
        x = frames(number)
        step(quantiser, x, seed=number)
        step(accumulated, *x.split(1), seed=number)
        assert_close(accumulated, state(quantiser))


def test_a_forward_by_itself_is_a_step(quantiser):
    alone = copy.deepcopy(quantiser)
    for number in range(3):
        step(quantiser, frames(number), seed=number)
        alone(frames(number), generator=torch.Generator().manual_seed(number))
    assert_same(alone, state(quantiser))


def test_each_batch_of_a_step_sees_the_codebooks_that_the_step_began_with(quantiser):
    step(quantiser, frames(0))
    before = copy.deepcopy(quantiser)
    outputs = step(quantiser, frames(1), frames(2), frames(1))
    assert torch.equal(outputs[0]["codes"], outputs[2]["codes"])
    assert torch.equal(outputs[1]["codes"], before.encode(frames(2)))
    assert not torch.equal(quantiser.encode(frames(2)), outputs[1]["codes"])


def test_an_evaluation_within_a_step_is_no_part_of_it(quantiser):
    other = copy.deepcopy(quantiser)
    for number in range(2):
        step(quantiser, frames(number))
        other.begin_step()
        other.eval()(frames(7), return_codes=True)
        other.train()(frames(number), generator=torch.Generator().manual_seed(0))
        other.encode(frames(8))
        other.end_step()
    assert_same(other, state(quantiser))


@pytest.mark.parametrize("freeze", ["requires_grad_", "eval", "a module around it"])
def test_what_is_frozen_stays_and_the_gradient_still_reaches_the_frames(quantiser, freeze):
    step(quantiser, frames(0))
    if freeze == "eval":
        quantiser.eval()
    else:
        holder = torch.nn.ModuleList([quantiser])
        (quantiser if freeze == "requires_grad_" else holder).requires_grad_(False)
    before, x = state(quantiser), frames(1).requires_grad_()
    [output] = step(quantiser, x)
    assert_same(quantiser, before)
    assert torch.equal(output["codes"], quantiser.encode(x))
    if freeze != "eval":
        (grad,) = torch.autograd.grad(output["x"].square().sum(), x)
        assert grad.norm() > 0
        quantiser.requires_grad_(True)
        step(quantiser, x.detach())
        changed = [name for name, value in quantiser.state_dict().items() if "code" in name]
        assert any(not torch.equal(quantiser.state_dict()[name], before[name]) for name in changed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_averages_keep_their_precision_in_a_module_of_another(quantiser, dtype):
    low, reference = copy.deepcopy(quantiser).to(dtype), copy.deepcopy(quantiser)
    reference.proj.to(dtype).float()  # the rounded projection
    assert low.state_dict().keys() == reference.state_dict().keys()
    for number in range(3):
        x = frames(number).to(dtype)
        [output] = step(low, x)
        [expected] = step(reference, x.float())
        assert output["x"].dtype == dtype
        assert torch.equal(output["codes"], expected["codes"])
    averages = {name: value for name, value in low.named_buffers() if value.is_floating_point()}
    assert averages and all(value.dtype != dtype or dtype == torch.float64 for value in
                            averages.values())  # fmt: skip
    for name, value in averages.items():
        torch.testing.assert_close(value.float(), reference.get_buffer(name), rtol=1e-4, atol=1e-5)
