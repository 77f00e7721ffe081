"""Quick layers against those of SpeechBrain."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder, ConvolutionModule
from speechbrain.nnet.attention import RelPosEncXL, RelPosMHAXL
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

from brainquant.quick_layers import QUICK, quicken


@pytest.mark.parametrize("attention", ["RelPosMHAXL", "regularMHA"])
@pytest.mark.parametrize("training", [True, False])
def test_a_quickened_conformer_changes_no_output_and_no_gradient(attention, training):
    torch.manual_seed(0)
    stock = ConformerEncoder(2, 12, 24, 3, attention_type=attention, dropout=0.0).train(training)
    ours = copy.deepcopy(stock)
    quicken(ours)
    assert ours.state_dict().keys() == stock.state_dict().keys()
    assert {type(part) for part in ours.modules()}.isdisjoint(QUICK)
    x, padding = torch.randn(2, 19, 12), torch.arange(19) >= torch.tensor([[19], [11]])
    positions = RelPosEncXL(12)(x) if attention == "RelPosMHAXL" else None
    results = []
    for encoder in (stock, ours):
        inputs = x.clone().requires_grad_()
        y, weights = encoder(inputs, src_key_padding_mask=padding, pos_embs=positions)
        tensors = [inputs, *encoder.parameters()]
        results.append((y, *torch.autograd.grad(y[~padding].sin().sum(), tensors)))
        dropped = encoder is ours and training and attention == "regularMHA"
        assert all((matrix is None) == dropped for matrix in weights)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_quickened_convolution_in_bf16_has_an_end():
    stock = ConvolutionModule(16, 31)
    ours, x = copy.deepcopy(stock), torch.randn(2, 40, 16)
    quicken(ours)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ours(x), stock(x), rtol=0.1, atol=0.05)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.sampled_from([0, 3]))
def test_the_shift_of_positions_is_speechbrains_to_the_bit(batch, heads, frames, more):
    """With more positions than frames, as nobody has them, and without."""
    stock = RelPosMHAXL(heads, heads, 0.0)
    ours = copy.deepcopy(stock)
    quicken(ours)
    x = torch.randn(2 * batch, heads, frames, 2 * frames - 1 + more)[::2].requires_grad_()
    shifted, expected = ours.rel_shift(x), stock.rel_shift(x)
    assert torch.equal(shifted, expected)
    pull = torch.randn_like(expected)
    for grad, grad_expected in zip(*(torch.autograd.grad(y, x, pull) for y in (shifted, expected))):
        assert torch.equal(grad, grad_expected)


@pytest.mark.parametrize(
    "arguments, options",
    [({"causal": True}, {}), ({}, {"dynchunktrain_config": DynChunkTrainConfig(4, 1)})],
)
def test_other_convolutions_of_a_conformer_are_left_to_speechbrain(arguments, options):
    stock = ConvolutionModule(8, 5, **arguments)
    ours, x = copy.deepcopy(stock), torch.randn(2, 12, 8)
    quicken(ours)
    assert torch.equal(ours(x, **options), stock(x, **options))


def test_attention_to_the_past_only_is_left_to_speechbrain():
    stock = RelPosMHAXL(4, 2, 0.0, mask_pos_future=True)
    ours, x = copy.deepcopy(stock), torch.randn(2, 2, 5, 9)
    quicken(ours)
    assert torch.equal(ours.rel_shift(x), stock.rel_shift(x))
