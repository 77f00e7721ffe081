"""Checkpoints of fairseq with random weights, under the names that fairseq gives to tensors."""

import argparse

import torch

CONVOLUTIONS = "[(8, 10, 5)] + [(8, 3, 2)] * 4 + [(8, 2, 2)] * 2"
SIZES = {
    "conv_feature_layers": CONVOLUTIONS, "encoder_layers": 2, "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 32, "encoder_attention_heads": 2, "conv_pos": 16,
    "conv_pos_groups": 2, "final_dim": 6, "latent_vars": 5, "latent_groups": 2, "latent_dim": 4,
    "encoder_layerdrop": 0.05, "dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip
# The configurations of the public models: base, and large with the layer norms of XLS-R
NORMS = {
    "group": {"extractor_mode": "default", "conv_bias": False, "layer_norm_first": False},
    "layer": {"extractor_mode": "layer_norm", "conv_bias": True, "layer_norm_first": True},
}


def make_state(kind="wav2vec2", norm="group", seed=0):
    """The ``model:`` of a checkpoint."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def add(name, *shape, bias=True):
        state[f"{name}.weight"] = 0.3 * torch.randn(shape, generator=generator)
        if bias:
            state[f"{name}.bias"] = 0.3 * torch.randn(shape[0], generator=generator)

    state["mask_emb"] = torch.rand(16, generator=generator)
    for i, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        layer = f"feature_extractor.conv_layers.{i}"
        add(f"{layer}.0", 8, 8 if i else 1, kernel, bias=norm == "layer")
        if norm == "layer":
            add(f"{layer}.2.1", 8)
        elif i == 0:
            add(f"{layer}.2", 8)
    add("post_extract_proj", 16, 8)
    if kind == "wav2vec2":
        state["quantizer.vars"] = torch.rand(1, 10, 2, generator=generator)
        add("quantizer.weight_proj", 10, 8)
        add("project_q", 6, 4)
    state["encoder.pos_conv.0.bias"] = torch.randn(16, generator=generator)
    state["encoder.pos_conv.0.weight_g"] = torch.rand(1, 1, 16, generator=generator)
    state["encoder.pos_conv.0.weight_v"] = torch.randn(16, 8, 16, generator=generator)
    for i in range(2):
        layer = f"encoder.layers.{i}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            add(f"{layer}.self_attn.{name}", 16, 16)
        add(f"{layer}.self_attn_layer_norm", 16)
        add(f"{layer}.fc1", 32, 16)
        add(f"{layer}.fc2", 16, 32)
        add(f"{layer}.final_layer_norm", 16)
    add("encoder.layer_norm", 16)
    add("layer_norm", 8)
    add("final_proj", 6, 16)
    if kind == "hubert":
        state["label_embs_concat"] = torch.rand(12, 6, generator=generator)
    return state


def make_model_keys(kind="wav2vec2", norm="group", **changes):
    """The keys of the model in ``cfg:``."""
    keys = {"_name": kind, **SIZES, **NORMS[norm], **changes}
    return {**keys, "quantize_targets": True} if kind == "wav2vec2" else keys


def make_checkpoint(kind="wav2vec2", norm="group", *, form="cfg", normalize=True, **changes):
    """What fairseq saves, but for the optimiser."""
    model = make_model_keys(kind, norm, **changes)
    task = {"_name": "audio_pretraining", "normalize": normalize, "sample_rate": 16000}
    cfg = {"_name": None, "model": model, "task": task, "common": {"seed": 1}}
    args = None
    if form == "args":
        flat = {key: value for key, value in {**model, **task}.items() if key != "_name"}
        cfg, args = None, argparse.Namespace(arch=kind, **flat)
    return {
        "args": args, "cfg": cfg, "model": make_state(kind, norm), "criterion": None,
        "optimizer_history": [{"num_updates": 7}], "extra_state": {"epoch": 1},
    }  # fmt: skip


def make_finetuned(kind="wav2vec2", norm="group", **changes):
    """What fairseq saves after fine-tuning with CTC."""
    pretrained = make_checkpoint(kind, norm, **changes)
    state = {
        f"w2v_encoder.w2v_model.{name}": tensor
        for name, tensor in pretrained["model"].items()
        if name.split(".")[0] not in ("quantizer", "project_q", "final_proj", "label_embs_concat")
    }
    state |= {"w2v_encoder.proj.weight": torch.rand(3, 16), "w2v_encoder.proj.bias": torch.rand(3)}
    name = {"wav2vec2": "wav2vec_ctc", "hubert": "hubert_ctc"}[kind]
    inner = pretrained["cfg"] or pretrained["args"]
    if pretrained["args"] is None:
        outer = {"cfg": {"model": {"_name": name, "w2v_args": inner}, "task": {}}, "args": None}
    else:
        outer = {"cfg": None, "args": argparse.Namespace(arch=name, w2v_args=inner)}
    return {**pretrained, **outer, "model": state}
