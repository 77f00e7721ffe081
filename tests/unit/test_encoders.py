"""The parts of encoders beside SpeechBrain's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.lobes.models.transformer.TransformerASR import EncoderWrapper, TransformerASR
from speechbrain.nnet.CNN import Conv2d
from speechbrain.utils.dynamic_chunk_training import (
    DynChunkTrainConfig,
    DynChunkTrainConfigRandomSampler,
)

from brainquant.models.layers import ChannelsLastConv2d, DynamicChunkEncoder

CHUNKS = DynChunkTrainConfig(chunk_size=4, left_context_size=1)


def make_transformer():
    torch.manual_seed(0)
    return TransformerASR(
        tgt_vocab=1, input_size=16, d_model=16, nhead=2, num_encoder_layers=2, num_decoder_layers=0,
        d_ffn=32, dropout=0.0, encoder_module="conformer", attention_type="RelPosMHAXL",
        positional_encoding=None, normalize_before=True, causal=False,
    )  # fmt: skip


def test_validation_has_the_chunks_of_the_sampler():
    transformer = make_transformer()
    sampler = DynChunkTrainConfigRandomSampler(1.0, 2, 2, 0.0, 1, 1, valid_config=CHUNKS)
    encoder = DynamicChunkEncoder(transformer, sampler).eval()
    stock = EncoderWrapper(transformer).eval()
    x, lengths = torch.randn(2, 20, 16), torch.tensor([1.0, 0.6])
    with torch.no_grad():
        expected = stock(x, lengths, dynchunktrain_config=CHUNKS)
        assert torch.equal(encoder(x, lengths), expected)
        assert not torch.equal(encoder(x, lengths), stock(x, lengths))
    assert encoder.state_dict().keys() == stock.state_dict().keys()


def test_training_draws_chunks_and_sometimes_none():
    sampler = DynChunkTrainConfigRandomSampler(0.5, 2, 5, 0.5, 1, 3)
    encoder = DynamicChunkEncoder(make_transformer(), sampler).train()
    x = torch.randn(1, 20, 16)

    def reach(seed):
        """The last frame that the first one sees."""
        torch.manual_seed(seed)
        inputs = x.clone().requires_grad_()
        encoder(inputs)[0, 0, 0].backward()
        return inputs.grad[0].abs().sum(1).nonzero().max().item()

    seen = [reach(seed) for seed in range(12)]
    assert seen == [reach(seed) for seed in range(12)]
    assert 19 in seen and min(seen) <= 4 and len(set(seen)) > 3


def test_what_is_streamed_is_what_was_trained():
    encoder = DynamicChunkEncoder(make_transformer(), lambda stage: CHUNKS).eval()
    x = torch.randn(1, 16, 16)
    context = encoder.make_streaming_context(CHUNKS)
    with torch.no_grad():
        streamed = [encoder.forward_streaming(chunk, context) for chunk in x.split(4, dim=1)]
        torch.testing.assert_close(torch.cat(streamed, dim=1), encoder(x), atol=1e-5, rtol=1e-4)


@given(
    channels=st.sampled_from([None, 1, 4]),
    groups=st.booleans(),
    kernel=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 5])),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.integers(1, 2),
    padding=st.sampled_from(["same", "valid"]),
)
def test_channels_last_convolution_is_speechbrains(
    channels, groups, kernel, stride, dilation, padding
):
    torch.manual_seed(0)
    size = (2, 30, 20, channels) if channels else (2, 30, 20)
    arguments = dict(
        out_channels=6, kernel_size=kernel, stride=stride, dilation=dilation, padding=padding,
        input_shape=size, groups=2 if groups and channels == 4 else 1,
    )  # fmt: skip
    stock, ours = Conv2d(**arguments), ChannelsLastConv2d(**arguments)
    ours.load_state_dict(stock.state_dict())
    x = torch.randn(size, requires_grad=True)
    results = []
    for convolution in (stock, ours):
        y = convolution(x)
        pull = torch.linspace(-1, 2, y.numel()).view(y.shape)
        results.append((y, *torch.autograd.grad(y, (x, *convolution.parameters()), pull)))
    for slow, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-3)
    assert results[1][0].is_contiguous()


@pytest.mark.parametrize("argument", [{"padding": "causal"}, {"max_norm": 0.1}, {"swap": True}])
def test_channels_last_convolution_leaves_what_is_rare_to_speechbrain(argument):
    stock = Conv2d(6, 3, input_shape=(2, 30, 20, 4), **argument)
    ours = ChannelsLastConv2d(6, 3, input_shape=(2, 30, 20, 4), **argument)
    ours.load_state_dict(stock.state_dict())
    x = torch.randn(2, 30, 20, 4)
    assert torch.equal(ours(x), stock(x))


def test_channels_last_convolution_in_a_front_end_changes_no_output():
    arguments = dict(input_shape=(2, 30, 20), num_blocks=2, num_layers_per_block=2, dropout=0.0)
    arguments |= dict(out_channels=[8, 4], strides=[2, 2], residuals=[True, False])
    stock = ConvolutionFrontEnd(**arguments)
    ours = ConvolutionFrontEnd(**arguments, conv_module=ChannelsLastConv2d)
    ours.load_state_dict(stock.state_dict())
    x = torch.randn(2, 30, 20)
    torch.testing.assert_close(ours(x), stock(x), rtol=1e-4, atol=1e-5)
