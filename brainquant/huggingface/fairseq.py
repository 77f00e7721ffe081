"""Checkpoints of fairseq as models of transformers: wav2vec 2.0 and HuBERT.

The keys are those of fairseq's ``Wav2Vec2Config`` and ``HubertConfig``, as of its last version.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from .fairseq_names import names_of, rename
from .stand_ins import plain, read_pickle

FINE_TUNED = ("wav2vec_ctc", "hubert_ctc")  # they hold an encoder at ENCODER
ENCODER = "w2v_encoder.w2v_model."

# fairseq's key, its default, transformers' key
KEYS = (
    ("encoder_layers", 12, "num_hidden_layers"),
    ("encoder_embed_dim", 768, "hidden_size"),
    ("encoder_ffn_embed_dim", 3072, "intermediate_size"),
    ("encoder_attention_heads", 12, "num_attention_heads"),
    ("conv_pos", 128, "num_conv_pos_embeddings"),
    ("conv_pos_groups", 16, "num_conv_pos_embedding_groups"),
    ("conv_bias", False, "conv_bias"),
    ("layer_norm_first", False, "do_stable_layer_norm"),
    ("activation_fn", "gelu", "hidden_act"),
    ("dropout", 0.1, "hidden_dropout"),
    ("attention_dropout", 0.1, "attention_dropout"),
    ("activation_dropout", 0.0, "activation_dropout"),
    ("dropout_input", 0.0, "feat_proj_dropout"),
    ("encoder_layerdrop", 0.0, "layerdrop"),
)
KEYS_OF_HEADS = (
    ("latent_vars", 320, "num_codevectors_per_group"),
    ("latent_groups", 2, "num_codevector_groups"),
    ("dropout_features", 0.0, "feat_quantizer_dropout"),
    ("logit_temp", 0.1, "contrastive_logits_temperature"),
    ("num_negatives", 100, "num_negatives"),
)
# What transformers has no place for, and the only value of each that is read
ONLY = {
    "layer_type": "transformer", "pos_conv_depth": 1, "conv_pos_batch_norm": False,
    "quantize_input": False, "target_glu": False, "crop_seq_to_multiple": 1,
}  # fmt: skip
NORMS = {"default": "group", "layer_norm": "layer"}  # of extractor_mode
CONVOLUTIONS = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2"  # fairseq's default
MOST = 1000  # convolutions or layers


class FairseqModel(NamedTuple):
    """What a checkpoint of fairseq is in transformers."""

    kind: str  # "wav2vec2" or "hubert"
    config: dict[str, Any]  # of transformers' config.json
    state: dict[str, torch.Tensor]  # names of a Wav2Vec2ForPreTraining, or of the encoder alone
    sample_rate: int
    do_normalize: bool  # whether waveforms get mean zero and variance one


def read_fairseq(path: str) -> FairseqModel:
    """Reads a ``.pt`` file of fairseq with a wav2vec 2.0 or HuBERT model.

    Of a model that was fine-tuned with CTC the encoder is read. Nothing in the file is executed.

    Raises
    ------
    ValueError
        If the file has another model, one that transformers has no place for, or too few or too
        many tensors; or if it holds objects of other classes than fairseq writes.
    """
    content = read_pickle(path)
    try:
        return _convert(content)
    except ValueError as error:
        raise ValueError(f"model: {path}: {error}") from error


def _convert(content: dict[str, Any]) -> FairseqModel:
    model, task = _model_and_task(content.get("cfg"), content.get("args"))
    name, prefix = _name(model), ""
    if name in FINE_TUNED:
        prefix, pretraining = ENCODER, model.get("w2v_args")
        if not isinstance(pretraining, dict):
            raise ValueError("it was fine-tuned, and has no w2v_args: that describe the encoder")
        model, task = _model_and_task(pretraining, pretraining)
        name = _name(model)
    if name not in ("wav2vec2", "hubert"):
        raise ValueError(
            f"it is a model {name!s:.50}; wav2vec2 and hubert are read, and what was "
            f"fine-tuned from them with CTC"
        )
    with_heads = name == "wav2vec2" and not prefix and bool(model.get("quantize_targets"))
    config = _config(name, model, with_heads)
    names = names_of(config, prefix, with_heads)
    state = rename(content.get("model"), names, prefix, with_heads)
    if config["conv_dim"][-1] == config["hidden_size"]:  # where fairseq has no projection
        projection = ("wav2vec2." if with_heads else "") + "feature_projection.projection"
        state[f"{projection}.weight"] = torch.eye(config["hidden_size"])
        state[f"{projection}.bias"] = torch.zeros(config["hidden_size"])
    rate = _checked("sample_rate", task.get("sample_rate", 16000), 16000)
    normalize = _checked("normalize", task.get("normalize", False), False)
    return FairseqModel(name, config, state, rate, normalize)


def _model_and_task(cfg: Any, args: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keys of the model and of its task: from ``cfg``, or from the older ``args``."""
    cfg, args = plain(cfg), plain(args)
    if isinstance(cfg, dict) and isinstance(cfg.get("model"), dict):
        task = cfg.get("task")
        return cfg["model"], task if isinstance(task, dict) else {}
    if isinstance(args, dict):
        return args, args
    raise ValueError("it has neither cfg nor args: give a checkpoint that fairseq has written")


def _name(model: Mapping[str, Any]) -> Any:
    return model.get("arch") or model.get("_name")


def _config(name: str, model: Mapping[str, Any], with_heads: bool) -> dict[str, Any]:
    """The keys of transformers' ``config.json``."""
    for key, only in ONLY.items():
        if model.get(key, only) != only:
            raise ValueError(
                f"its {key} is {str(model[key]):.50}, and transformers' {name} has no such part; "
                f"only {key}: {only} is read"
            )
    config: dict[str, Any] = {"model_type": name}
    for key, default, theirs in (*KEYS, *(KEYS_OF_HEADS if with_heads else ())):
        config[theirs] = _checked(key, model.get(key, default), default)
    if config["hidden_act"] not in ("gelu", "relu"):
        raise ValueError(f"its activation_fn is {config['hidden_act']:.50}; gelu and relu are read")
    if config["num_hidden_layers"] > MOST:
        raise ValueError(f"its encoder_layers are {config['num_hidden_layers']}, more than {MOST}")
    mode = model.get("extractor_mode", "default")
    if mode not in NORMS:
        raise ValueError(f"its extractor_mode is {mode!s:.50}; {' and '.join(NORMS)} are read")
    config["feat_extract_norm"] = NORMS[mode]
    layers = parse_convolutions(model.get("conv_feature_layers", CONVOLUTIONS))
    sizes = zip(("conv_dim", "conv_kernel", "conv_stride"), map(list, zip(*layers)))
    config.update(sizes)
    config["architectures"] = ["HubertModel" if name == "hubert" else "Wav2Vec2Model"]
    if with_heads:
        if (depth := model.get("quantizer_depth", 1)) != 1:
            raise ValueError(f"its quantizer_depth is {depth!s:.50}, and transformers has 1")
        config["architectures"] = ["Wav2Vec2ForPreTraining"]
        final = _checked("final_dim", model.get("final_dim", 0), 0)
        config["proj_codevector_dim"] = final if final > 0 else config["hidden_size"]
        codes = _checked("latent_dim", model.get("latent_dim", 0), 0)
        config["codevector_dim"] = codes if codes > 0 else config["proj_codevector_dim"]
    return config


def _checked(key: str, value: Any, default: Any) -> Any:
    """A value of the type of fairseq's default; whole numbers are positive if that is."""
    kind = type(default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (kind is int and value < min(default, 1)):
        raise ValueError(f"its {key} is {str(value):.50}, which fairseq does not write")
    return value


def parse_convolutions(text: Any) -> list[tuple[int, int, int]]:
    """Channels, kernel and stride of each convolution, from fairseq's expression of them.

    Only lists of tuples of whole numbers, ``+`` and ``*`` are read; nothing is evaluated.

    Raises
    ------
    ValueError
        If it is another expression.

    Example
    -------
    >>> parse_convolutions("[(512, 10, 5)] + [(512, 3, 2)] * 2")
    [(512, 10, 5), (512, 3, 2), (512, 3, 2)]
    """
    try:
        layers = _lists(ast.parse(str(text)[:2000].strip(), mode="eval").body)
    except (MemoryError, RecursionError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"its conv_feature_layers are {str(text)[:100]!r}; lists of (channels, kernel, stride) "
            f"with + and * are read"
        ) from error
    return layers


def _lists(node: ast.expr) -> list[tuple[int, int, int]]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        layers = _lists(node.left) + _lists(node.right)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        layers = _lists(node.left) * min(_whole(node.right), MOST + 1)
    elif isinstance(node, ast.List):
        layers = [_sizes(element) for element in node.elts]
    else:
        raise ValueError("neither a list nor a sum or product")
    if not 0 < len(layers) <= MOST:
        raise ValueError("no layers, or too many")
    return layers


def _sizes(node: ast.expr) -> tuple[int, int, int]:
    if not isinstance(node, ast.Tuple) or len(node.elts) != 3:
        raise ValueError("no tuple of three")
    channels, kernel, stride = map(_whole, node.elts)
    return channels, kernel, stride


def _whole(node: ast.expr) -> int:
    if not isinstance(node, ast.Constant) or type(node.value) is not int or node.value < 1:
        raise ValueError("no whole number from 1 up")
    return node.value
