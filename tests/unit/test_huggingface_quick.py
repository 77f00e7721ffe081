"""The fast code of held encoders against transformers' own modules: values and gradients."""

import pytest
import torch
from tiny_huggingface import make_model, vary

from brainquant.huggingface.encoder import HuggingFaceEncoder

MODELS = {
    "wav2vec 2.0, group norm": ("Wav2Vec2Model", {"norm": "group"}),
    "wav2vec 2.0, layer norm": ("Wav2Vec2Model", {"norm": "layer"}),
    "wavlm, group norm": ("WavLMModel", {"norm": "group", "num_buckets": 8}),
    "data2vec": ("Data2VecAudioModel", {"conv_pos_kernel_size": 7, "num_conv_pos_embeddings": 2}),
}
LENGTHS = torch.tensor([9000, 4321])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("padded", [False, True])
def test_outputs_and_gradients_are_those_of_transformers_for_each_clip(name, padded):
    kind, changes = MODELS[name]
    changes = {"apply_spec_augment": False, **changes}
    stock, held = (vary(make_model(kind, **changes)).double() for _ in range(2))
    encoder = HuggingFaceEncoder(held, do_normalize=False).train()
    stock.train()
    lengths = LENGTHS if padded else torch.tensor([9000, 9000])
    wavs = [torch.sin(torch.arange(n, dtype=torch.float64) ** 1.3 / (90 + n)) for n in lengths]
    wavs_BL = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True, padding_value=0.7)
    encoded = encoder(wavs_BL, lengths)
    ours = [h_TD[:n] for h_TD, n in zip(encoded.hidden_BTD, encoded.frames_B, strict=True)]
    theirs = [stock(wav_L[None]).last_hidden_state[0] for wav_L in wavs]
    gradients = []
    for hidden, model in ((ours, held), (theirs, stock)):
        hidden = torch.cat(hidden)
        pull = torch.linspace(-1, 2, hidden.numel()).view(hidden.shape)
        (hidden * pull).sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(torch.cat(ours), torch.cat(theirs), rtol=1e-5, atol=1e-5)
    found, expected = gradients
    assert found.keys() == expected.keys() and len(found) > 40
    for key, gradient in expected.items():
        if key.endswith("k_proj.bias"):
            continue  # zero in exact arithmetic
        error = float((found[key] - gradient).norm() / gradient.norm())
        assert error < 1e-5, (key, error)
