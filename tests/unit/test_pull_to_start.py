"""The pull towards the first weights, beside the formula with plain numbers."""

import pytest
import torch

from brainquant.errors import RunError
from brainquant.training.pull_to_start import PullToStart
from brainquant.training.steps import GradientStep


def layers(number=2):
    torch.manual_seed(0)
    return torch.nn.ModuleList(torch.nn.Linear(3, 2) for _ in range(number))


def train(module, optimizer, pull, factors):
    """Steps whose losses have these factors."""
    steps = GradientStep(
        module, optimizer, None, torch.amp.GradScaler("cpu", enabled=False), patience=9,
        write_step=lambda *_: None,
        before_step=lambda good: pull.apply(optimizer.param_groups, good),
    )  # fmt: skip
    x = torch.arange(6.0).view(2, 3)
    for number, factor in enumerate(factors, start=1):
        steps.begin_batch([])
        steps.backward(factor * sum(layer(x).square().mean() for layer in module))
        steps.take(number)
    steps.read()


def test_each_step_is_the_formula_at_the_rate_of_each_group():
    module = layers()
    pull = PullToStart(2.0, module[0])  # the second layer is not pulled
    pull.begin()
    groups = [{"params": module[0].parameters(), "lr": 0.02}, {"params": module[1].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.04)
    slow = {name: p.detach().double() for name, p in module.named_parameters()}
    first = dict(slow)
    x = torch.arange(6.0).view(2, 3).double()
    for _ in range(5):
        gradients = {}
        for number in (0, 1):
            weight, bias = slow[f"{number}.weight"], slow[f"{number}.bias"]
            y = x @ weight.T + bias
            gradients[f"{number}.weight"] = (2 * y / y.numel()).T @ x
            gradients[f"{number}.bias"] = (2 * y / y.numel()).sum(0)
        for name, p in slow.items():
            lr, strength = (0.02, 2.0) if name.startswith("0") else (0.04, 0.0)
            # The gradient is that of the weights before the pull, as in AdamW's weight decay.
            slow[name] = p - lr * strength * (p - first[name]) - lr * gradients[name]
    train(module, optimizer, pull, [1.0] * 5)
    for name, p in module.named_parameters():
        torch.testing.assert_close(p.detach().double(), slow[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_that_is_left_out_pulls_nothing(fused):
    module = layers()
    pull = PullToStart(5.0, module)
    pull.begin()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, fused=fused)
    train(module, optimizer, pull, [1.0, 1.0])
    before = [p.detach().clone() for p in module.parameters()]
    train(module, optimizer, pull, [float("nan")])
    assert all(map(torch.equal, before, module.parameters()))


def test_weights_that_have_not_moved_stay_to_the_bit_and_a_strong_pull_only_goes_back():
    module = layers()
    pull = PullToStart(1e6, module)
    pull.begin()
    first = [p.detach().clone() for p in module.parameters()]
    groups = [{"params": list(module.parameters()), "lr": 0.001}]
    for moved in (0.0, 1.0):
        with torch.no_grad():
            for p in module.parameters():
                p.add_(moved)
        pull.apply(groups, torch.tensor(True))
        for p, start in zip(module.parameters(), first):
            assert torch.equal(p, start) if not moved else torch.allclose(p, start)


def test_frozen_parameters_and_other_modules_are_left_alone():
    module = layers(3)
    module[0].requires_grad_(False)
    pull = PullToStart(1.0, module[:2])
    pull.begin()
    assert [*pull.start] == ["1.weight", "1.bias"]
    with torch.no_grad():
        for p in module.parameters():
            p.add_(1.0)
    before = [p.detach().clone() for p in module.parameters()]
    pull.apply([{"params": list(module.parameters()), "lr": 0.1}], torch.tensor(True))
    changed = [not torch.equal(*pair) for pair in zip(before, module.parameters())]
    assert changed == [False, False, True, True, False, False]


def test_a_checkpoint_has_the_first_weights_only_with_the_pull():
    module, other = layers(), layers()
    without, pull = PullToStart(0.0, module), PullToStart(1.0, module)
    without.begin()
    pull.begin()
    assert without.state_dict() == {} and without.start == {}
    again = PullToStart(3.0, other)  # the strength may change
    again.load_state_dict(pull.state_dict())
    assert all(torch.equal(again.start[name], t) for name, t in pull.start.items())
    without.load_state_dict(pull.state_dict())
    assert without.start == {}
    for state in (without.state_dict(), PullToStart.without_state):
        with pytest.raises(RunError, match="pull_to_start is 1, but the checkpoint lacks .*0.weig"):
            pull.load_state_dict(state)
