"""Convolutions over time against those of torch.nn.functional."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from brainquant.models import convolution as module
from brainquant.models.convolution import convolution, norm_gelu_convolution

SIZES = {
    "batch": st.integers(1, 3),
    "more_frames": st.integers(0, 40),
    "channels": st.integers(2, 5),
    "outputs": st.integers(1, 5),
    "taps": st.integers(1, 6),
    "stride": st.integers(1, 5),
}


def slow_convolution(x_BTC, weight_OCK, stride, bias_O=None, *more):
    return F.conv1d(x_BTC.mT, weight_OCK, bias_O, stride, *more).mT


def slow_block(x_BTC, norm_weight_C, norm_bias_C, eps, weight_OCK, stride):
    normed_BTC = F.layer_norm(x_BTC, x_BTC.shape[2:], norm_weight_C, norm_bias_C, eps)
    return slow_convolution(F.gelu(normed_BTC), weight_OCK, stride)


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
    shapes = (batch, frames, channels), (channels,), (channels,), (outputs, channels, taps)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.fixture(scope="module", autouse=True)
def several_chunks():
    """Small chunks, so that a few frames make several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", 7)
        yield


@given(**{**SIZES, "channels": st.integers(1, 5)})
def test_it_is_conv1d_with_its_gradients(batch, more_frames, channels, outputs, taps, stride):
    x_BTC, _, _, weight_OCK = tensors(batch, taps + more_frames, channels, outputs, taps)
    tolerances = {"rtol": 1e-4, "atol": 1e-4}
    assert_same(convolution, slow_convolution, x_BTC, weight_OCK, stride, **tolerances)
    assert convolution(x_BTC, weight_OCK, stride).is_contiguous()


@given(
    **{**SIZES, "channels": st.integers(1, 5)}, padding=st.integers(0, 4), depthwise=st.booleans()
)
@pytest.mark.parametrize("dilation", [1, 2])
def test_with_a_bias_padding_dilation_and_groups(
    batch, more_frames, channels, outputs, taps, stride, padding, dilation, depthwise
):
    frames = dilation * (taps - 1) + 1 + more_frames
    if depthwise:
        outputs, groups, inputs = channels, channels, 1
    else:
        groups, inputs = 1, channels
    x_BTC, *_ = tensors(batch, frames, channels, 1, 1)
    *_, weight_OCK = tensors(1, 1, inputs, outputs, taps)
    bias_O = torch.linspace(-1, 1, outputs)
    more = stride, bias_O, padding, dilation, groups
    assert_same(convolution, slow_convolution, x_BTC, weight_OCK, *more, rtol=1e-4, atol=1e-4)


@given(**SIZES)
def test_a_block_is_its_parts(batch, more_frames, channels, outputs, taps, stride):
    x_BTC, scale_C, bias_C, weight_OCK = tensors(batch, taps + more_frames, channels, outputs, taps)
    arguments = x_BTC, scale_C, bias_C, 1e-3, weight_OCK, stride
    assert_same(norm_gelu_convolution, slow_block, *arguments, rtol=1e-3, atol=1e-3)
    assert norm_gelu_convolution(*arguments).is_contiguous()


def test_a_block_under_autocast_is_its_parts():
    x_BTC, scale_C, bias_C, weight_OCK = tensors(2, 40, 4, 3, 3)
    arguments = x_BTC, scale_C, bias_C, 1e-5, weight_OCK, 2
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(norm_gelu_convolution, slow_block, *arguments, rtol=0.05, atol=0.2)
