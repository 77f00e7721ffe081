"""Convolutions over time against those of torch.nn.functional."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from brainquant.models.convolution import convolution

SIZES = {
    "batch": st.integers(1, 3),
    "more_frames": st.integers(0, 40),
    "channels": st.integers(1, 5),
    "outputs": st.integers(1, 5),
    "taps": st.integers(1, 6),
    "stride": st.integers(1, 5),
}


def slow_convolution(x_BTC, weight_OCK, stride, bias_O=None, *more):
    return F.conv1d(x_BTC.mT, weight_OCK, bias_O, stride, *more).mT


def output_and_gradients(function, *arguments):
    arguments = [
        a.clone().requires_grad_() if isinstance(a, torch.Tensor) else a for a in arguments
    ]
    y_BSO = function(*arguments)
    pull_BSO = torch.linspace(-1, 2, y_BSO.numel()).view(y_BSO.shape).to(y_BSO.dtype)
    tensors = [a for a in arguments if isinstance(a, torch.Tensor)]
    return y_BSO, *torch.autograd.grad(y_BSO, tensors, pull_BSO)


def assert_same(fast, slow, *arguments, **tolerances):
    pairs = zip(
        output_and_gradients(fast, *arguments), output_and_gradients(slow, *arguments), strict=True
    )
    for ours, theirs in pairs:
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, **tolerances)


def tensors(batch, frames, channels, outputs, taps):
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, frames, channels), (outputs, channels, taps)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@given(**SIZES)
def test_it_is_conv1d_with_its_gradients(batch, more_frames, channels, outputs, taps, stride):
    x_BTC, weight_OCK = tensors(batch, taps + more_frames, channels, outputs, taps)
    tolerances = {"rtol": 1e-4, "atol": 1e-4}
    assert_same(convolution, slow_convolution, x_BTC, weight_OCK, stride, **tolerances)
    assert convolution(x_BTC, weight_OCK, stride).is_contiguous()


@given(**SIZES, padding=st.integers(0, 4), depthwise=st.booleans())
@pytest.mark.parametrize("dilation", [1, 2])
def test_with_a_bias_padding_dilation_and_groups(
    batch, more_frames, channels, outputs, taps, stride, padding, dilation, depthwise
):
    frames = dilation * (taps - 1) + 1 + more_frames
    if depthwise:
        outputs, groups, inputs = channels, channels, 1
    else:
        groups, inputs = 1, channels
    x_BTC, _ = tensors(batch, frames, channels, 1, 1)
    _, weight_OCK = tensors(1, 1, inputs, outputs, taps)
    bias_O = torch.linspace(-1, 1, outputs)
    more = stride, bias_O, padding, dilation, groups
    assert_same(convolution, slow_convolution, x_BTC, weight_OCK, *more, rtol=1e-4, atol=1e-4)
