"""What a held model is made of, as data: the part of its fingerprint that no tensor shows."""

from __future__ import annotations

from typing import Any

from .bert_encoder import W2vBertEncoder
from .encoder import HuggingFaceEncoder

HELD = HuggingFaceEncoder, W2vBertEncoder
# What changes the hidden states, but neither names nor shapes of tensors
READ = (
    "attention_head_dim", "conv_depthwise_kernel_size", "conv_kernel", "conv_pos_batch_norm",
    "conv_stride", "do_stable_layer_norm", "feat_extract_activation", "feat_extract_norm",
    "feat_proj_layer_norm", "hidden_act", "layer_norm_eps", "left_max_position_embeddings",
    "max_bucket_distance", "max_source_positions", "model_type", "num_attention_heads",
    "num_buckets", "num_conv_pos_embedding_groups", "num_conv_pos_embeddings",
    "position_embeddings_type", "right_max_position_embeddings", "rotary_embedding_base",
)  # fmt: skip


def is_held(encoder: Any) -> bool:
    """Whether an encoder is a model of transformers."""
    return isinstance(encoder, HELD)


def describe_held(
    encoder: HuggingFaceEncoder | W2vBertEncoder, quantiser: Any = None
) -> dict[str, Any]:
    """What a held model is made of.

    The same model has the same description in a run, in the folder that is exported of it, and on
    the Hub, whatever heads and dropout its config has.

    Arguments
    ---------
    encoder : HuggingFaceEncoder or W2vBertEncoder
        The encoder.
    quantiser : Quantiser or None
        That of its codes.

    Example
    -------
    >>> from brainquant.huggingface.library import import_transformers
    >>> transformers = import_transformers()
    >>> config = transformers.HubertConfig(
    ...     hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    ...     conv_dim=[8] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    ... )
    >>> encoder = HuggingFaceEncoder(transformers.HubertModel(config))
    >>> describe_held(encoder)["encoder"]["model_type"]
    'hubert'
    """
    config = encoder.model.config
    described = {key: getattr(config, key) for key in READ if hasattr(config, key)}
    described = {key: list(v) if isinstance(v, tuple) else v for key, v in described.items()}
    described |= {"sample_rate": encoder.sample_rate}
    if isinstance(encoder, HuggingFaceEncoder):
        described["do_normalize"] = encoder.do_normalize
    name = None if quantiser is None else type(quantiser).__name__
    return {"encoder": described, "quantiser": name}
