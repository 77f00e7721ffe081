"""Quick layers against those of SpeechBrain."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from speechbrain.lobes.models.transformer.Branchformer import BranchformerEncoder
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder, ConvolutionModule
from speechbrain.lobes.models.transformer.Transformer import PositionalEncoding
from speechbrain.lobes.models.transformer.TransformerASR import make_transformer_src_mask
from speechbrain.nnet.attention import MultiheadAttention, RelPosEncXL, RelPosMHAXL
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

from brainquant.models.quick import QUICK, quicken

CHUNKS = DynChunkTrainConfig(chunk_size=5, left_context_size=1)


@pytest.mark.parametrize("attention", ["RelPosMHAXL", "regularMHA"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [ConformerEncoder, BranchformerEncoder])
def test_a_quickened_encoder_computes_for_a_batch_what_stock_does_for_its_clips(
    kind, attention, training
):
    torch.manual_seed(0)
    sizes = {"num_layers": 2, "d_model": 12, "nhead": 3, "kernel_size": 7, "dropout": 0.0}
    sizes |= {"d_ffn": 24} if kind is ConformerEncoder else {"csgu_linear_units": 24}
    stock = kind(**sizes, attention_type=attention).train(training)
    for parameter in stock.parameters():  # some are next to nothing in a branchformer
        torch.nn.init.normal_(parameter, std=0.3)
    ours = copy.deepcopy(stock)
    quicken(ours)
    assert ours.state_dict().keys() == stock.state_dict().keys()
    assert {type(part) for part in ours.modules()}.isdisjoint(QUICK)
    x, lengths = torch.randn(2, 19, 12), (19, 11)
    padding = torch.arange(19) >= torch.tensor(lengths)[:, None]

    def encode(encoder, x, **options):
        positions = RelPosEncXL(12)(x) if attention == "RelPosMHAXL" else None
        return encoder(x, pos_embs=positions, **options)

    results = []
    for encoder in (stock, ours):
        inputs = x.clone().requires_grad_()
        if encoder is ours:
            y, weights = encode(encoder, inputs, src_key_padding_mask=padding)
            y = y[~padding]
            dropped = training and attention == "regularMHA"
            assert all((matrix is None) == dropped for matrix in weights)
        else:
            alone = [encode(encoder, clip[None, :n])[0] for clip, n in zip(inputs, lengths)]
            y = torch.cat(alone, dim=1)[0]
        tensors = [inputs, *encoder.parameters()]
        results.append((y, *torch.autograd.grad(y.sin().sum(), tensors)))
    for expected, quick in zip(*results, strict=True):
        torch.testing.assert_close(quick, expected, rtol=1e-3, atol=1e-4)


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


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "arguments, options", [({"causal": True}, {}), ({}, {"dynchunktrain_config": CHUNKS})]
)
def test_causal_and_chunked_convolutions_of_a_clip_are_speechbrains(arguments, options, precision):
    stock = ConvolutionModule(18, 5, **arguments)
    ours, x = copy.deepcopy(stock), torch.randn(2, 12, 18, requires_grad=True)
    quicken(ours)
    results = []
    for module in (ours, stock):
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            y = module(x, **options)
        results.append((y, *torch.autograd.grad(y.sin().sum(), [x, *module.parameters()])))
    tolerance = 1e-5 if precision == torch.float32 else 0.1
    for quick, expected in zip(*results, strict=True):
        torch.testing.assert_close(quick, expected, rtol=tolerance, atol=tolerance)


def test_chunks_of_a_causal_convolution_are_refused():
    module = ConvolutionModule(8, 5, causal=True)
    quicken(module)
    with pytest.raises(ValueError, match="causal must be False .*set causal: False"):
        module(torch.randn(1, 12, 8), dynchunktrain_config=CHUNKS)


@pytest.mark.parametrize("options", [{}, {"dynchunktrain_config": CHUNKS}])
def test_what_padding_holds_reaches_no_frame_of_a_convolution(options):
    module, x = ConvolutionModule(8, 5), torch.randn(1, 12, 8)
    quicken(module)
    expected = module(x[:, :7], **options)
    x[:, 7:] = float("nan")
    mask = torch.arange(12)[None, :, None] >= 7
    y = module(x, mask, **options)
    torch.testing.assert_close(y[:, :7], expected, rtol=1e-5, atol=1e-6)
    assert not y[:, 7:].any()


@pytest.mark.parametrize("training", [True, False])
def test_attention_of_a_chunk_that_is_all_padding_stays_finite(training):
    attention = MultiheadAttention(2, 8).train(training)
    quicken(attention)
    x = torch.randn(1, 6, 8, requires_grad=True)
    chunks = make_transformer_src_mask(x, dynchunktrain_config=DynChunkTrainConfig(2, 0))
    padding = torch.arange(6)[None] >= 3
    y, _ = attention(x, x, x, attn_mask=chunks, key_padding_mask=padding)
    alone, _ = attention(x[:, :3], x[:, :3], x[:, :3], attn_mask=chunks[:3, :3])
    torch.testing.assert_close(y[:, :3], alone, rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert y.isfinite().all() and gradient.isfinite().all()


def test_absolute_positions_have_no_end_and_the_same_state():
    stock = PositionalEncoding(6, max_len=10)
    ours = copy.deepcopy(stock)
    quicken(ours)
    assert ours.state_dict().keys() == stock.state_dict().keys()
    encoded = ours(torch.zeros(2, 25, 6))
    assert torch.equal(encoded, PositionalEncoding(6, max_len=25).pe)
    assert torch.equal(encoded[:, :10], stock(torch.zeros(2, 10, 6)))
    assert torch.equal(ours(torch.zeros(2, 7, 6)), encoded[:, :7])
    assert ours.pe.shape == stock.pe.shape
    assert ours.half()(torch.zeros(1, 25, 6)).dtype == torch.float16


def test_attention_to_the_past_only_is_left_to_speechbrain():
    stock = RelPosMHAXL(4, 2, 0.0, mask_pos_future=True)
    ours, x = copy.deepcopy(stock), torch.randn(2, 2, 5, 9)
    quicken(ours)
    assert torch.equal(ours.rel_shift(x), stock.rel_shift(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("attention", ["RelPosMHAXL", "regularMHA"])
def test_a_quickened_encoder_of_another_dtype_gives_that_dtype(attention, dtype):
    torch.manual_seed(0)
    encoder = ConformerEncoder(2, 12, 24, 3, kernel_size=7, attention_type=attention).eval()
    quicken(encoder)
    x = torch.randn(2, 19, 12)
    positions = RelPosEncXL(12) if attention == "RelPosMHAXL" else lambda x: None
    expected, *_ = encoder(x, pos_embs=positions(x))
    seen, *_ = encoder.to(dtype)(x.to(dtype), pos_embs=positions(x.to(dtype)))
    assert seen.dtype == dtype
    torch.testing.assert_close(seen.float(), expected, rtol=0.1, atol=0.1)


def test_the_log_says_which_layers_were_replaced_and_how_to_keep_them(caplog):
    encoder = ConformerEncoder(num_layers=2, d_model=12, d_ffn=24, nhead=3, kernel_size=7)
    with caplog.at_level("INFO"):
        quicken(encoder)
        quicken(torch.nn.Linear(2, 2))  # nothing to replace, nothing to say
    (record,) = caplog.records
    text = record.getMessage()
    assert "2 x ConvolutionModule, " in text and "2 x RelPosMHAXL" in text
    assert "quick_layers: False" in text
