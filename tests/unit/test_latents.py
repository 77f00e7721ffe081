"""The latents of waveforms against torch's own convolutions and norms of each waveform alone."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from brainquant.models import matrix_convolutions
from brainquant.models.first_convolution import NormedConvolution
from brainquant.models.latents import make_latents

SIZES = st.tuples(st.integers(2, 4), st.integers(1, 6), st.integers(1, 5))  # of a convolution


@pytest.fixture(scope="module", autouse=True)
def several_chunks():
    """Small chunks, so that a few frames make several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix_convolutions, "CHUNK", 7)
        yield


def make_convolutions(sizes, norm, bias, dtype=torch.float64):
    """Convolutions of these channels, taps and strides, normed as in models of transformers."""
    generator, inputs, convolutions = torch.Generator().manual_seed(0), 1, []

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    for number, (channels, taps, stride) in enumerate(sizes):
        kind = norm if norm == "layer" or number == 0 else None
        of_norm = (kind, draw(channels), draw(channels), 1e-3) if kind else ()
        bias_O = draw(channels) if bias else None
        kernel_OCK = draw(channels, inputs, taps)
        convolutions.append(NormedConvolution(kernel_OCK, stride, bias_O, *of_norm))
        inputs = channels
    return convolutions


def slow_latents(wav_L, convolutions):
    """Latents (frames, channels) of one waveform."""
    x_1CT = wav_L[None, None]
    for kernel, stride, bias, norm, *of_norm in convolutions:
        if x_1CT.shape[2] < kernel.shape[2]:
            return x_1CT.new_zeros(0, len(convolutions[-1].weight_OCK))
        x_1CT = F.conv1d(x_1CT, kernel, bias, stride)
        if norm == "group":
            scale_C, shift_C, eps = of_norm
            centred_1CT = x_1CT - x_1CT.mean(2, keepdim=True)  # group_norm refuses a single frame
            rstd_1C1 = (centred_1CT.square().mean(2, keepdim=True) + eps).rsqrt()
            x_1CT = centred_1CT * rstd_1C1 * scale_C[:, None] + shift_C[:, None]
        if norm == "layer":
            x_1CT = F.layer_norm(x_1CT.mT, (len(kernel),), *of_norm).mT
        x_1CT = F.gelu(x_1CT)
    return x_1CT[0].T


def parameters(convolutions):
    return [t for c in convolutions for t in c.tensors if t is not None]


def compare(wavs, convolutions, recompute=False, **tolerances):
    """Asserts that latents and gradients of a batch are those of its waveforms alone."""
    wavs_BL = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True, padding_value=5.0)
    samples_B = torch.tensor([len(wav) for wav in wavs])
    ours_BTC = make_latents(wavs_BL, samples_B, convolutions, recompute=recompute)
    slow = [slow_latents(wav, convolutions) for wav in wavs]
    ours = torch.cat([row[: len(alone)] for row, alone in zip(ours_BTC, slow, strict=True)])
    slow = torch.cat(slow)
    torch.testing.assert_close(ours, slow, **tolerances)
    pull = torch.linspace(-1, 2, slow.numel(), dtype=slow.dtype).view(slow.shape)
    gradients = [
        torch.autograd.grad((y * pull).sum(), parameters(convolutions)) for y in (ours, slow)
    ]
    for gradient, slow_gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, slow_gradient, **tolerances)


@pytest.mark.parametrize("norm", ["group", "layer", None])
@given(st.lists(SIZES, min_size=2, max_size=4), st.booleans(), st.booleans(), st.integers(0, 60))
def test_they_are_those_of_each_waveform_alone(norm, sizes, bias, recompute, more):
    convolutions, field, step = make_convolutions(sizes, norm, bias), 1, 1
    for _, taps, stride in sizes:
        field, step = field + (taps - 1) * step, step * stride
    generator = torch.Generator().manual_seed(1)
    lengths = field + more, field + step + more // 2, field - 1
    wavs = [torch.randn(n, generator=generator, dtype=torch.float64) for n in lengths]
    compare(wavs, convolutions, recompute, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_torchs_own_kernels_give_the_same(norm, recompute):
    # They compute on a GPU, under autocast, and for waveforms that need a gradient.
    convolutions = make_convolutions([(4, 5, 3), (3, 3, 2), (4, 2, 2)], norm, True)
    wavs = torch.randn(150, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wavs = list(wavs.requires_grad_().split([90, 60]))
    compare(wavs, convolutions, recompute, rtol=1e-6, atol=1e-6)
