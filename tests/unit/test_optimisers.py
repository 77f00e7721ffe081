"""An optimiser that cannot work ends the run before its first step, with one line."""

import functools

import pytest
import torch

from brainquant.errors import RunError
from brainquant.training.optimisers import make_optimizer

CANNOT = {
    "LBFGS": ({}, "a closure"),
    "SparseAdam": ({}, "does not support dense gradients"),
    "Muon": ({}, "only supports 2D parameters"),
    "AdamW": ({"betas": 0.9}, "betas|subscriptable"),
    "SGD": ({"lr": -1.0}, "Invalid learning rate"),
    "Adam": ({"momentum": 0.9}, "momentum"),
}
CAN = [
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam",
    "RMSprop", "Rprop", "SGD",
]  # fmt: skip


def model():
    return torch.nn.Linear(3, 2).parameters()


@pytest.mark.parametrize("name", CANNOT)
def test_an_optimiser_that_cannot_work_is_named(name):
    if not hasattr(torch.optim, name):
        pytest.skip(f"torch {torch.__version__} has no {name}")
    options, reason = CANNOT[name]
    make = functools.partial(getattr(torch.optim, name), **options)
    with pytest.raises(RunError, match=f"optimizer: {name} cannot train here .*({reason})"):
        make_optimizer(make, model(), None)


@pytest.mark.parametrize("name", CAN)
def test_every_other_optimiser_of_torch_is_made_as_it_is(name):
    optimizer = make_optimizer(getattr(torch.optim, name), model(), None)
    assert [p.shape for p in optimizer.param_groups[0]["params"]] == [(2, 3), (2,)]
    # The trial uses other parameters. Only Adagrad has a state before its first step.
    assert all(state["step"] == 0 for state in optimizer.state.values())
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    assert optimizer.state_dict() == saved


@pytest.mark.parametrize("name", CAN)
def test_every_other_optimiser_of_torch_goes_on_after_a_resume(name):
    make = functools.partial(getattr(torch.optim, name), lr=0.1)
    layer = torch.nn.Linear(3, 2)
    then, now = make_optimizer(make, layer.parameters(), None), make_optimizer(make, model(), None)
    layer(torch.ones(1, 3)).sum().backward()
    then.step()
    now.load_state_dict(then.state_dict())
    assert list(now.state_dict()["state"]) == list(then.state_dict()["state"])


class Counting(torch.optim.SGD):
    """Counts its steps in its options, as optimisers of some packages do."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1


def test_what_an_optimiser_counts_among_its_options_is_kept():
    then, now = (make_optimizer(functools.partial(Counting, lr=lr), model(), None) for lr in (1, 2))
    then.step()
    now.load_state_dict(then.state_dict())
    assert now.param_groups[0]["k"] == 1 and now.param_groups[0]["lr"] == 2


class WithoutRate(torch.optim.Optimizer):
    """Has no learning rate in its groups."""

    def __init__(self, params):
        super().__init__(params, {})

    def step(self, closure=None):
        pass


def test_an_optimiser_without_a_learning_rate_is_one_clear_line():
    with pytest.raises(RunError, match="^optimizer: WithoutRate has no lr in its groups .*AdamW$"):
        make_optimizer(WithoutRate, model(), None)
