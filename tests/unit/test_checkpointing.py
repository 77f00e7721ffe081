"""Activation checkpointing changes the memory of a training step, and nothing else."""

import copy

import pytest
import tiny_encoders
import torch
from tiny_huggingface import make_model, vary

from brainquant.huggingface.bert_encoder import W2vBertEncoder
from brainquant.huggingface.encoder import HuggingFaceEncoder
from brainquant.models.checkpointing import checkpoint_activations

DROPOUTS = dict.fromkeys(["hidden_dropout", "attention_dropout", "feat_proj_dropout"], 0.2)
ENCODERS = {
    "best_rq": tiny_encoders.best_rq,
    "wav2vec2": tiny_encoders.wav2vec2,
    "held wav2vec 2.0": lambda: HuggingFaceEncoder(
        vary(make_model("Wav2Vec2Model", "group", **DROPOUTS, layerdrop=0.5))
    ),
    "held wavlm": lambda: HuggingFaceEncoder(vary(make_model("WavLMModel", **DROPOUTS))),
    "held w2v-bert": lambda: W2vBertEncoder(
        make_model("Wav2Vec2BertModel", **DROPOUTS, num_hidden_layers=4)
    ),
}
WAVS_BL = 0.1 * torch.randn(2, 24000, generator=torch.Generator().manual_seed(0))
LENGTHS_B = torch.tensor([24000, 15000])


@pytest.fixture(params=ENCODERS)
def encoders(request):
    """An encoder with dropout in training, and a copy that checkpoints."""
    plain = ENCODERS[request.param]().train()
    for part in plain.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.2
    checkpointing = copy.deepcopy(plain)
    checkpointing.checkpoint_activations()
    return plain, checkpointing


def encode(encoder):
    torch.manual_seed(1)
    return encoder(WAVS_BL, LENGTHS_B)


def test_outputs_and_gradients_are_the_same_to_the_last_bit(encoders):
    results = []
    for encoder in encoders:
        encoded = encode(encoder)
        loss = encoded.hidden_BTD.square().mean() + encoded.inputs_BTI.square().mean()
        loss.backward()
        gradients = [p.grad for p in encoder.parameters()]
        results.append([encoded.hidden_BTD, torch.rand(1), *gradients])
    assert not torch.equal(results[0][0], encoders[0](WAVS_BL, LENGTHS_B).hidden_BTD)  # dropout
    for expected, found in zip(*results, strict=True):
        assert (expected is None and found is None) or torch.equal(expected, found)


def kept_bytes(encoder):
    """Bytes of the activations that a step keeps for its backward."""
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encode(encoder)
    for parameter in encoder.parameters():
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(size for size, tensor in storages.values() if tensor.shape != WAVS_BL.shape)


def test_at_most_half_is_kept_for_the_backward(encoders):
    plain, checkpointing = encoders
    assert kept_bytes(checkpointing) < kept_bytes(plain) / 2


def test_layers_are_read_once_and_evaluation_computes_nothing_again(encoders):
    plain, checkpointing = encoders
    seen, inner = [], []
    layer = checkpointing.layers[0]
    norm = next(part for part in layer.modules() if isinstance(part, torch.nn.LayerNorm))
    layer.register_forward_hook(lambda *_: seen.append(1))
    norm.register_forward_hook(lambda *_: inner.append(1))
    # Layer drop may leave the layer out; this seed does not.
    torch.manual_seed(4)
    checkpointing(WAVS_BL, LENGTHS_B).hidden_BTD.sum().backward()
    assert (len(seen), len(inner)) == (1, 2)
    outputs = [encoder.eval().layer_outputs(WAVS_BL, LENGTHS_B, [2, 1]) for encoder in encoders]
    assert all(map(torch.equal, *outputs))
    sum(output.sum() for output in outputs[1]).backward()
    assert (len(seen), len(inner)) == (2, 3)


def test_a_copy_computes_with_its_own_parameters():
    layer = torch.nn.Sequential(torch.nn.Linear(2, 2))
    checkpoint_activations([layer])
    other = copy.deepcopy(layer)
    torch.nn.init.zeros_(other[0].weight)
    x = torch.ones(1, 2)
    assert torch.equal(other(x), other[0](x)) and not torch.equal(other(x), layer(x))
    assert layer.state_dict().keys() == {"0.weight", "0.bias"}


def test_a_batch_norm_is_refused():
    layer = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match="activation_checkpointing: Sequential holds a batch norm"):
        checkpoint_activations([layer])


def test_a_compiled_layer_computes_the_same():
    plain = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.GELU(), torch.nn.LayerNorm(4))
    layer = copy.deepcopy(plain)
    checkpoint_activations([layer])
    torch._dynamo.reset()
    x = torch.randn(3, 4)
    for module in (plain, torch.compile(layer, backend="aot_eager")):
        module(x).square().sum().backward()
    for expected, found in zip(plain.parameters(), layer.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)
