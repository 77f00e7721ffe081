"""Held encoders compute what transformers computes for a clip, and the same in any batch."""

import copy

import pytest
import torch
from tiny_huggingface import make_model, save_model, vary

from brainquant.huggingface import load_encoder
from brainquant.huggingface.bert_encoder import W2vBertEncoder
from brainquant.huggingface.encoder import HuggingFaceEncoder
from brainquant.huggingface.library import import_transformers

POSITIONS = {"conv_pos_kernel_size": 7, "num_conv_pos_embeddings": 3}
MODELS = {
    "hubert large": ("HubertModel", {}),
    "hubert without a norm of its latents": ("HubertModel", {"feat_proj_layer_norm": False}),
    "hubert with a batch norm": ("HubertModel", {"conv_pos_batch_norm": True}),
    "wavlm large": ("WavLMModel", {}),
    "data2vec": ("Data2VecAudioModel", POSITIONS),
    "wav2vec 2.0": ("Wav2Vec2Model", {"do_stable_layer_norm": False}),
    "w2v-bert": ("Wav2Vec2BertModel", {}),
    "w2v-bert, rotary": ("Wav2Vec2BertModel", {"position_embeddings_type": "rotary"}),
    "w2v-bert, relative": ("Wav2Vec2BertModel", {"position_embeddings_type": "relative"}),
    "hubert base": ("HubertModel", {"norm": "group"}),
    "wavlm base": ("WavLMModel", {"norm": "group"}),
}
LENGTHS = torch.tensor([16000, 7123])


def hold(name):
    """A model of transformers in training mode as a run has it, but without dropout, and ours."""
    kind, changes = MODELS[name]
    if kind == "Wav2Vec2BertModel":
        changes = {**changes, "conformer_conv_dropout": 0.0}
    model = vary(make_model(kind, **changes))
    if kind == "Wav2Vec2BertModel":
        return model, W2vBertEncoder(model)
    return model, HuggingFaceEncoder(model)


def make_clips():
    generator = torch.Generator().manual_seed(1)
    wavs_BL = torch.randn(2, 16000, generator=generator) + 0.1
    wavs_BL[1, LENGTHS[1] :] = 0.0
    mask_BT = torch.zeros(2, 49, dtype=torch.bool)
    mask_BT[0, 5:15] = mask_BT[1, 3:9] = True
    return wavs_BL, mask_BT


def theirs(model, wav_L, mask_T):
    """transformers' own outputs for a clip."""
    transformers = import_transformers()
    keywords = {"sampling_rate": 16000, "return_tensors": "pt"}
    if model.config.model_type == "wav2vec2-bert":
        inputs = transformers.SeamlessM4TFeatureExtractor()(wav_L.numpy(), **keywords)
    else:
        inputs = transformers.Wav2Vec2FeatureExtractor()(wav_L.numpy(), **keywords)
    frames = len(mask_T)
    if "input_features" in inputs:  # one more where half of an encoder frame is left over
        mask_T = torch.nn.functional.pad(mask_T, (0, inputs["input_features"].shape[1] - frames))
    given = mask_T[None] if mask_T.any() else None
    return model(**inputs, mask_time_indices=given).last_hidden_state[:, :frames]


def assert_close(found, expected, tolerance=1e-5):
    found, expected = found.detach(), expected.detach()
    assert float((found - expected).norm()) < tolerance * float(expected.norm())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("masked", [False, True])
def test_a_clip_gets_what_transformers_gives_it(name, masked):
    model, encoder = hold(name)
    wavs_BL, mask_BT = make_clips()
    length = int(LENGTHS[1])
    frames = encoder.count_frames(length)
    mask_1T = mask_BT[1:, :frames] & masked
    encoded = encoder.eval()(wavs_BL[1:, :length], LENGTHS[1:], mask_1T)
    assert encoded.hidden_BTD.shape == (1, frames, encoder.dim) == (1, frames, 16)
    assert encoded.inputs_BTI.shape == (1, frames, encoder.input_dim)
    assert_close(encoded.hidden_BTD, theirs(model, wavs_BL[1, :length], mask_1T[0]))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [False, True])
def test_a_clip_is_encoded_alike_alone_and_in_a_batch(name, training):
    model, encoder = hold(name)
    encoder.train(training)
    wavs_BL, mask_BT = make_clips()
    wavs_BL[1, LENGTHS[1] :] = 0.7  # whatever follows a clip
    together = encoder(wavs_BL, LENGTHS, mask_BT)
    frames = int(together.frames_B[1])
    alone = encoder(wavs_BL[1:, : LENGTHS[1]], LENGTHS[1:], mask_BT[1:, :frames])
    assert_close(together.hidden_BTD[1, :frames], alone.hidden_BTD[0])
    assert_close(together.inputs_BTI[1, :frames], alone.inputs_BTI[0])
    inputs_BTI, frames_B = encoder.quantiser_inputs(wavs_BL, LENGTHS)
    assert torch.equal(inputs_BTI, together.inputs_BTI) and frames_B.tolist() == [49, frames]


@pytest.mark.parametrize("name", ["wavlm large", "data2vec"])
def test_a_copy_of_an_encoder_computes_with_its_own_parts(name):
    _, encoder = hold(name)
    wavs_BL, mask_BT = make_clips()
    expected = encoder.eval()(wavs_BL, LENGTHS, mask_BT).hidden_BTD
    copied = copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
    encoder(wavs_BL[:1, :8000], LENGTHS[1:])  # another clip, which the copy knows nothing of
    assert torch.equal(copied(wavs_BL, LENGTHS, mask_BT).hidden_BTD, expected)


@pytest.mark.parametrize("name", ["wavlm large", "w2v-bert"])
def test_layers_and_frames_are_those_of_the_model(name):
    model, encoder = hold(name)
    wavs_BL, _ = make_clips()
    outputs = encoder.eval().layer_outputs(wavs_BL, LENGTHS)
    assert [output.shape for output in outputs] == [(2, 49, 16)] * 2
    groups = encoder.parameters_by_layer()
    assert len(groups) == 3 and sum(map(len, groups)) == len([*model.parameters()])
    assert any(p is model.masked_spec_embed for p in groups[0])
    field, stride = encoder.min_samples, encoder.stride
    for frames in (1, 2, 30):
        assert encoder.count_frames(field + (frames - 1) * stride) == frames
        assert encoder.count_frames(field + frames * stride - 1) == frames
    assert encoder.count_frames(torch.tensor([field - 1])).tolist() == [0]
    with pytest.raises(ValueError, match=f"leave out clips with fewer than {field} samples"):
        encoder(wavs_BL[:, : field - 1], torch.tensor([field - 1] * 2))


def test_a_batch_norm_keeps_its_statistics_on_several_ranks_too():
    encoder = HuggingFaceEncoder(make_model("HubertModel", conv_pos_batch_norm=True))
    torch.nn.SyncBatchNorm.convert_sync_batchnorm(encoder).train()
    assert not encoder.model.encoder.pos_conv_embed.batch_norm.training


def test_a_model_with_another_activation_in_its_convolutions_is_refused():
    with pytest.raises(ValueError, match="model: feat_extract_activation is 'relu', but only gelu"):
        HuggingFaceEncoder(make_model("HubertModel", feat_extract_activation="relu"))


@pytest.mark.parametrize("kind", ["Wav2Vec2ForCTC", "HubertForCTC", "Wav2Vec2BertForCTC"])
def test_a_fine_tuned_model_keeps_its_layers_and_gets_a_vector_for_masked_frames(
    tmp_path, kind, caplog
):
    # As in facebook/wav2vec2-base-960h and others: masks are off, so the file has no vector.
    adapter = {"add_adapter": True} if kind.startswith("Wav2Vec2") else {}
    model = save_model(tmp_path, kind, mask_time_prob=0.0, vocab_size=5, **adapter)
    assert not any("masked_spec_embed" in name for name in model.state_dict())
    torch.manual_seed(1)
    encoder = load_encoder(str(tmp_path))
    assert "has no vector for masked frames (masked_spec_embed): it is drawn anew" in caplog.text
    vector_D = encoder.model.masked_spec_embed
    assert vector_D.requires_grad and vector_D.shape == (16,)
    torch.manual_seed(1)  # drawn by us: transformers 5.0 leaves it as the memory was
    assert torch.equal(torch.rand(16), vector_D)
    torch.manual_seed(2)
    assert not torch.equal(load_encoder(str(tmp_path)).model.masked_spec_embed, vector_D)
    # The config is what it was, and the parameters are those of the file.
    assert encoder.model.config.mask_time_prob == 0.0
    found = encoder.model.state_dict()
    prefix = model.base_model_prefix + "."
    for name, tensor in model.state_dict().items():
        if name.startswith(prefix):
            assert torch.equal(found.pop(name.removeprefix(prefix)), tensor), name
    assert [*found] == ["masked_spec_embed"]
    # An adapter follows the layers; the pretraining neither uses nor trains it.
    wavs_BL, mask_BT = make_clips()
    encoder(wavs_BL, LENGTHS, mask_BT).hidden_BTD.sum().backward()
    for name, parameter in encoder.model.named_parameters():
        assert (parameter.grad is None) == name.startswith("adapter"), name
        assert parameter.requires_grad != name.startswith("adapter")


def test_a_vector_that_the_file_has_is_used_though_its_config_asks_for_no_masks(tmp_path):
    model = save_model(tmp_path, "HubertModel")
    model.config.mask_time_prob = 0.0
    model.config.save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    assert torch.equal(encoder.model.masked_spec_embed, model.masked_spec_embed)
    built = load_encoder(str(tmp_path), weights=False)
    assert built.lacks_weights and [*built.state_dict()] == [*encoder.state_dict()]


def test_features_of_another_size_are_refused_by_name():
    with pytest.raises(ValueError, match="feature_projection_input_dim is 161, but 2 frames"):
        W2vBertEncoder(make_model("Wav2Vec2BertModel", feature_projection_input_dim=161))
