"""Folders of transformers with random weights, small enough for a step in a moment."""

from brainquant.huggingface.library import import_transformers

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "conv_dim": [8] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
    "num_codevectors_per_group": 10, "codevector_dim": 8, "proj_codevector_dim": 8,
    "layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
}  # fmt: skip
# The variants of the public models: base, and large with the layer norms of XLS-R.
NORMS = {
    "group": {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False},
    "layer": {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
}


def make_model(kind="Wav2Vec2ForPreTraining", norm="layer", seed=0, **changes):
    """A model of transformers with random weights."""
    import torch

    transformers = import_transformers()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model_class = getattr(transformers, kind)
        model = model_class(model_class.config_class(**{**SIZES, **NORMS[norm], **changes}))
    return model.eval()


def vary(model):
    """Changes the parameters, so that no norm is one and no bias zero, and frames differ."""
    import torch

    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(number)
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def save_model(folder, kind="Wav2Vec2ForPreTraining", norm="layer", do_normalize=True, **changes):
    """Writes a folder as ``save_pretrained`` of transformers does, and returns its model."""
    transformers = import_transformers()
    model = make_model(kind, norm, **changes)
    model.save_pretrained(folder)
    if kind.startswith("Wav2Vec2Bert"):
        extractor = transformers.SeamlessM4TFeatureExtractor()
    else:
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=do_normalize)
    extractor.save_pretrained(folder)
    return model
