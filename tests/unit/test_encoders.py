"""The encoder that learns to stream, beside SpeechBrain's."""

import torch
from speechbrain.lobes.models.transformer.TransformerASR import EncoderWrapper, TransformerASR
from speechbrain.utils.dynamic_chunk_training import (
    DynChunkTrainConfig,
    DynChunkTrainConfigRandomSampler,
)

from brainquant.encoders import DynamicChunkEncoder

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
