"""Convolution over time against torch.nn.functional.conv1d."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from brainquant.functional import convolution
from brainquant.functional.convolution import strided_convolution


def reference(x_BTC, weight_OCK, stride):
    return F.conv1d(x_BTC.mT, weight_OCK, stride=stride).mT


def output_and_gradients(function, x_BTC, weight_OCK, stride):
    x_BTC, weight_OCK = x_BTC.clone().requires_grad_(), weight_OCK.clone().requires_grad_()
    y_BSO = function(x_BTC, weight_OCK, stride)
    pull_BSO = torch.linspace(-1, 2, y_BSO.numel()).view(y_BSO.shape).to(y_BSO.dtype)
    return y_BSO, *torch.autograd.grad(y_BSO, (x_BTC, weight_OCK), pull_BSO)


@pytest.fixture(scope="module", autouse=True)
def several_chunks():
    """Small chunks, so that a few frames make several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "CHUNK", 7)
        yield


@given(
    batch=st.integers(1, 3),
    more_frames=st.integers(0, 40),
    channels=st.integers(1, 5),
    outputs=st.integers(1, 5),
    taps=st.integers(1, 6),
    stride=st.integers(1, 5),
)
def test_it_is_conv1d_with_its_gradients(batch, more_frames, channels, outputs, taps, stride):
    generator = torch.Generator().manual_seed(0)
    x_BTC = torch.randn(batch, taps + more_frames, channels, generator=generator)
    weight_OCK = torch.randn(outputs, channels, taps, generator=generator)
    got = output_and_gradients(strided_convolution, x_BTC, weight_OCK, stride)
    wanted = output_and_gradients(reference, x_BTC, weight_OCK, stride)
    for ours, slow in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 4])
def test_autocast_gives_the_dtype_that_it_gives_conv1d(channels):
    x_BTC, weight_OCK = torch.rand(2, 40, channels), torch.rand(3, channels, 3)
    with torch.autocast("cpu", torch.bfloat16):
        got = output_and_gradients(strided_convolution, x_BTC, weight_OCK, 2)
        wanted = output_and_gradients(reference, x_BTC, weight_OCK, 2)
    for ours, slow in zip(got, wanted, strict=True):
        assert ours.dtype == slow.dtype
        torch.testing.assert_close(ours, slow, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("channels", [1, 4])
def test_the_output_is_contiguous(channels):
    assert strided_convolution(
        torch.rand(2, 40, channels), torch.rand(3, channels, 3), 2
    ).is_contiguous()


def test_a_frozen_kernel_still_passes_the_gradient_on():
    x_BTC = torch.rand(2, 40, 4, requires_grad=True)
    strided_convolution(x_BTC, torch.rand(3, 4, 3), 2).sum().backward()
    assert (x_BTC.grad[:, :39] != 0).all()
