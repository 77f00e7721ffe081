"""Optimiser steps of a small model, without a Brain."""

import math

import pytest
import torch

from brainquant.errors import RunError
from brainquant.training.steps import GradientStep


def make_steps(*modules, lr=1.0, optimizer=torch.optim.SGD, **options):
    """Steps of modules, and the list of what is left out."""
    left_out = []
    groups = [{"params": list(module.parameters())} for module in modules]
    steps = GradientStep(
        torch.nn.ModuleList(modules), optimizer(groups, lr=lr), None,
        torch.amp.GradScaler("cpu", enabled=False),
        write_step=lambda *step: left_out.append(step), **options,
    )  # fmt: skip
    return steps, left_out


def step(steps, number, *losses):
    for loss in losses:
        steps.begin_batch([f"clip {number}"])
        steps.backward(loss, 1 / len(losses))
    steps.take(number)


@pytest.mark.parametrize("limit, expected", [(0.5, 0.5), (0.0, 5.0), (-1, 5.0)])
def test_all_parameter_groups_are_clipped_and_no_limit_means_none(limit, expected):
    first, second = (torch.nn.Linear(1, 1, bias=False) for _ in range(2))
    before = torch.cat([first.weight, second.weight]).detach().clone()
    steps, _ = make_steps(first, second, max_grad_norm=limit)
    x = torch.ones(1)
    step(steps, 1, 3 * first(x).sum() + 4 * second(x).sum())
    steps.read()
    assert steps.grad_norm == pytest.approx(5.0)
    moved = torch.cat([first.weight, second.weight]).detach() - before
    torch.testing.assert_close(moved.norm().item(), expected, rtol=1e-4, atol=0)
    assert (moved < 0).all()  # down the gradient


def test_the_gradient_of_a_step_is_the_mean_over_its_batches():
    layer = torch.nn.Linear(1, 1, bias=False)
    before = layer.weight.item()
    steps, _ = make_steps(layer)
    step(steps, 1, *(layer(torch.tensor([x])).sum() for x in (1.0, 2.0, 6.0)))
    assert before - layer.weight.item() == pytest.approx(3.0)


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_that_is_not_finite_leaves_parameters_optimiser_and_buffers(fused):
    layer, norm = torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1)

    def adam(groups, lr):
        return torch.optim.AdamW(groups, lr=lr, fused=fused)

    steps, left_out = make_steps(layer, norm, optimizer=adam)
    x_B1 = torch.tensor([[1.0], [2.0]])
    step(steps, 1, norm(layer(x_B1)).square().sum())
    steps.read()

    def state():
        optimizer = steps.optimizer.state_dict()["state"].values()
        tensors = [
            *steps.modules.state_dict().values(),
            *(t for s in optimizer for t in s.values()),
        ]
        return [torch.as_tensor(tensor).clone() for tensor in tensors]

    before = state()
    step(steps, 2, norm(layer(math.nan * x_B1)).sum())
    steps.read()
    assert all(map(torch.equal, before, state()))
    assert left_out == [(2, "the loss", [["clip 2"]])]
    step(steps, 3, norm(layer(x_B1)).square().sum())
    steps.read()
    assert steps.nonfinite_in_a_row == 0 and not all(map(torch.equal, before, state()))


def test_too_many_in_a_row_end_the_run():
    layer = torch.nn.Linear(1, 1)
    steps, left_out = make_steps(layer, patience=1)
    step(steps, 1, math.nan * layer.weight.sum())
    with pytest.raises(RunError, match="step 2 left out.*nonfinite_patience 1.*Try a lower lr"):
        step(steps, 2, math.inf * layer.weight.sum())
        steps.read()
    assert [number for number, *_ in left_out] == [1, 2]


def test_what_a_checkpoint_would_keep_has_to_be_finite():
    layer, norm = torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1)
    steps, _ = make_steps(layer, norm)
    norm.running_var.fill_(math.inf)  # buffers may be infinite
    steps.check_finite(7)
    norm.running_mean.fill_(math.nan)
    with pytest.raises(RunError, match="running_mean is not finite at step 7.*no checkpoint"):
        steps.check_finite(7)


def test_the_state_goes_on_from_a_checkpoint():
    layer = torch.nn.Linear(1, 1)
    steps, _ = make_steps(layer, patience=2)
    step(steps, 1, math.nan * layer.weight.sum())
    steps.read()
    again, _ = make_steps(layer, patience=2)
    again.load_state_dict(steps.state_dict())
    assert again.nonfinite_in_a_row == 1 and math.isnan(again.grad_norm) and again.lr_then == 1.0
    with pytest.raises(ValueError, match="nonfinite_in_a_row is -1, not a count"):
        again.load_state_dict({**steps.state_dict(), "nonfinite_in_a_row": -1})
