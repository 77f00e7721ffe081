"""Attention on a CPU against matrices of all weights."""

import pytest
import torch

from brainquant.models import attention
from brainquant.models.attention import attend

B, H, T, D = 2, 3, 7, 4


@pytest.fixture(autouse=True, params=[2**20, 100, 1], ids=["all heads", "two heads", "one head"])
def scores(request, monkeypatch):
    """Heads that are computed at once."""
    monkeypatch.setattr(attention, "SCORES", request.param)


def draw(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def make_inputs(biased):
    """Query, key and value as views of other layouts; gate and bias."""
    of_heads = [draw(B, T + n, H, D)[:, n:].transpose(1, 2) for n in range(3)]
    return of_heads + ([draw(B, H, T), draw(H, T, T)] if biased else [None, None])


def slow(query, key, value, gate, bias, mask, dropped=1.0):
    scores = query @ key.mT * 0.3
    if bias is not None:
        scores = scores + gate[..., None] * bias
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1) * dropped) @ value


def gradients(output, inputs):
    pull = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view(output.shape)
    return torch.autograd.grad((output * pull).sum(), [x for x in inputs if x is not None])


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_outputs_and_gradients_are_those_of_all_weights(biased, padded, dropout):
    *inputs, gate, bias = make_inputs(biased)
    lengths_B = torch.tensor([T, T - 3])
    mask = (torch.arange(T) < lengths_B[:, None])[:, None, None] if padded else None
    options = {"scale": 0.3, "dropout": dropout, "gate_BHT": gate, "bias_HTT": bias}
    dropped = 1.0
    if dropout:  # values that are the identity show the weights
        torch.manual_seed(1)
        identity = torch.eye(T, dtype=torch.float64).expand(B, H, T, T)
        weights = attend(*inputs[:2], identity, mask, **options)
        dropped = (weights > 0) / (1 - dropout)
        share = float((dropped > 0).double().mean())
        assert padded or 0.4 < share < 0.8
    torch.manual_seed(1)
    ours = attend(*inputs, mask, **options)
    expected = slow(*inputs, gate, bias, mask, dropped)
    tolerances = {"rtol": 1e-4, "atol": 1e-4} if dropout else {}  # dropout has 16 bits
    torch.testing.assert_close(ours, expected, **tolerances)
    tensors = [*inputs, gate, bias]
    for found, right in zip(gradients(ours, tensors), gradients(expected, tensors), strict=True):
        torch.testing.assert_close(found, right, **tolerances)


def test_weights_that_are_dropped_follow_torchs_seed_and_differ_from_call_to_call():
    query, key, value, *_ = make_inputs(False)
    torch.manual_seed(1)
    first, second = (attend(query, key, value, scale=1.0, dropout=0.5) for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(attend(query, key, value, scale=1.0, dropout=0.5), first)
    assert not torch.equal(first, second)
    before = torch.get_rng_state()
    attend(query, key, value, scale=1.0)  # without dropout nothing is drawn
    assert torch.equal(torch.get_rng_state(), before)
