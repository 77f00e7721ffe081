"""Dropout against what torch promises of its own."""

import pytest
import torch

from brainquant.models.dropout import dropout
from brainquant.models.quick import QuickDropout, quicken


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_is_dropped_and_the_mean_stays(p, dtype):
    y = dropout(torch.ones(500, 400, dtype=dtype), p)
    assert y.dtype == dtype
    spread = (p * (1 - p) / y.numel()) ** 0.5
    assert abs((y == 0).float().mean().item() - p) < 5 * spread
    assert y.float().mean().item() == pytest.approx(1.0, abs=5 * spread / (1 - p) + 0.01)


def test_neighbours_are_dropped_independently():
    dropped = dropout(torch.ones(1000, 1000), 0.5) == 0
    for shifted in (dropped[:, 1:] ^ dropped[:, :-1], dropped[1:] ^ dropped[:-1]):
        assert shifted.float().mean().item() == pytest.approx(0.5, abs=0.003)


def test_the_gradient_is_that_of_what_stays():
    x = torch.rand(50, 40, requires_grad=True)
    y = dropout(x, 0.3)
    (y * torch.arange(40.0)).sum().backward()
    kept = (y / x.detach()).detach()
    torch.testing.assert_close(x.grad, kept * torch.arange(40.0))


def test_masks_follow_torchs_seed_and_differ_from_call_to_call():
    x = torch.ones(30, 30)
    torch.manual_seed(1)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.5), first)
    assert not torch.equal(first, second)


def test_a_model_is_changed_in_training_only():
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Dropout(0.0), torch.nn.Identity())
    quicken(model)
    assert [type(part) for part in model] == [QuickDropout, QuickDropout, torch.nn.Identity]
    x = torch.ones(30, 30)
    assert not torch.equal(model(x), x)
    assert torch.equal(model.eval()(x), x)
