"""Names of fairseq's tensors, and transformers' names for them: wav2vec 2.0 and HuBERT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

# Names of a layer and of the heads: fairseq's, transformers'
LAYER = {
    **{f"self_attn.{name}_proj": f"attention.{name}_proj" for name in ("k", "v", "q", "out")},
    "self_attn_layer_norm": "layer_norm",
    "fc1": "feed_forward.intermediate_dense",
    "fc2": "feed_forward.output_dense",
    "final_layer_norm": "final_layer_norm",
}
HEADS = {
    "quantizer.vars": "quantizer.codevectors",
    "quantizer.weight_proj.weight": "quantizer.weight_proj.weight",
    "quantizer.weight_proj.bias": "quantizer.weight_proj.bias",
    "project_q.weight": "project_q.weight",
    "project_q.bias": "project_q.bias",
    "final_proj.weight": "project_hid.weight",
    "final_proj.bias": "project_hid.bias",
}
OTHER_HEADS = ("final_proj", "label_embs_concat", "project_q")  # of targets that are not learned


def names_of(config: Mapping[str, Any], prefix: str, with_heads: bool) -> dict[str, str]:
    """Transformers' name of each tensor that the file must have, by fairseq's."""
    both = ("weight", "bias")
    names = {"mask_emb": "masked_spec_embed"}
    modules = {
        "layer_norm": "feature_projection.layer_norm",
        "post_extract_proj": "feature_projection.projection",
        "encoder.layer_norm": "encoder.layer_norm",
    }
    if config["conv_dim"][-1] == config["hidden_size"]:
        del modules["post_extract_proj"]
    convolutions = ("feature_extractor.conv_layers",) * 2
    for i in range(len(config["conv_dim"])):
        ours, theirs = (f"{name}.{i}" for name in convolutions)
        for part in both if config["conv_bias"] else both[:1]:
            names[f"{ours}.0.{part}"] = f"{theirs}.conv.{part}"
        if config["feat_extract_norm"] == "layer":
            modules[f"{ours}.2.1"] = f"{theirs}.layer_norm"
        elif i == 0:
            modules[f"{ours}.2"] = f"{theirs}.layer_norm"
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layers.{i}"
        modules.update({f"{layer}.{a}": f"{layer}.{b}" for a, b in LAYER.items()})
    names.update({f"{a}.{part}": f"{b}.{part}" for a, b in modules.items() for part in both})
    position = "encoder.pos_conv_embed.conv"
    names["encoder.pos_conv.0.bias"] = f"{position}.bias"
    names["encoder.pos_conv.0.weight_g"] = f"{position}.parametrizations.weight.original0"
    names["encoder.pos_conv.0.weight_v"] = f"{position}.parametrizations.weight.original1"
    if with_heads:
        names = {a: f"wav2vec2.{b}" for a, b in names.items()} | HEADS
    return {f"{prefix}{a}": b for a, b in names.items()}


def rename(
    model: Any, names: Mapping[str, str], prefix: str, with_heads: bool
) -> dict[str, torch.Tensor]:
    """The tensors under transformers' names, in float32; a ValueError if they are not these."""
    if not isinstance(model, dict) or not all(torch.is_tensor(t) for t in model.values()):
        raise ValueError("it has no model: with the weights; give a checkpoint of fairseq")
    if missing := [name for name in names if name not in model]:
        raise ValueError(
            f"{len(missing)} of its tensors are missing, such as {missing[0]}; download it again"
        )
    rest = [name for name in model if name not in names]
    heads = () if with_heads else OTHER_HEADS
    left_out = [
        name for name in rest
        if not name.startswith(prefix) or name.removeprefix(prefix).split(".")[0] in heads
    ]  # fmt: skip
    if extra := [name for name in rest if name not in left_out]:
        raise ValueError(
            f"it has {len(extra)} tensors that its configuration does not, such as "
            f"{extra[0]:.100}; give a checkpoint of fairseq's wav2vec2 or hubert"
        )
    if left_out:
        logger.info(f"Left out of the checkpoint of fairseq: {', '.join(left_out)}")
    # Copies: the file is mapped into memory, and may be replaced while the model is used.
    return {theirs: model[a].to(torch.float32, copy=True) for a, theirs in names.items()}
