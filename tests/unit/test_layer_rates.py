"""Learning rates by layer, of our encoders and of those of transformers."""

import pytest
from tiny_huggingface import make_model

from brainquant.huggingface.encoder import HuggingFaceEncoder
from brainquant.training.layer_rates import check_weight_decay, layer_groups


def rates(encoder):
    """The scale of the learning rate by the name of a parameter."""
    names = {id(p): name for name, p in encoder.named_parameters()}
    groups = layer_groups(encoder, 0.5)
    return {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}


@pytest.mark.parametrize(
    "kind, norm",
    [
        ("Wav2Vec2Model", "group"), ("Wav2Vec2Model", "layer"), ("HubertModel", "layer"),
        ("WavLMModel", "group"), ("Data2VecAudioModel", "group"),
    ],
)  # fmt: skip
def test_every_part_of_a_held_model_has_the_rate_of_its_place(kind, norm):
    pre_norm = norm == "layer"
    encoder = HuggingFaceEncoder(make_model(kind, norm))
    found = rates(encoder)
    assert found.keys() == {name for name, _ in encoder.named_parameters()}
    for name, scale in found.items():
        if name.startswith("model.encoder.layers."):
            expected = {"0": 0.5, "1": 1.0}[name.split(".layers.")[1].split(".")[0]]
        elif name.startswith("model.encoder.layer_norm."):
            # Models that normalise before each layer have this norm after the last one.
            expected = 1.0 if pre_norm else 0.25
        else:  # convolutions, projection, positions, masked_spec_embed
            expected = 0.25
        assert scale == expected, name


def test_frozen_parameters_are_in_no_group():
    encoder = HuggingFaceEncoder(make_model("Wav2Vec2Model"), freeze_extractor=True)
    assert not any("feature_extractor" in name for name in rates(encoder))
    encoder.requires_grad_(False)
    encoder.layers[1].requires_grad_(True)
    assert [group["lr_scale"] for group in layer_groups(encoder, 0.5)] == [1.0]


def test_two_ways_of_grouping_exclude_each_other():
    check_weight_decay(False)
    with pytest.raises(ValueError, match="remove_vector_weight_decay has no effect here"):
        check_weight_decay(True)
