"""Attention of models of transformers: the same, in less time and memory.

Shape suffixes: B batch, H heads, T frames, D dim of a head, E dim of all heads.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from ..functional.imports import import_late
from ..models.attention import attend
from .library import import_transformers

NAME = "brainquant"  # of our attention, among transformers' implementations


def quicken_attention(model: Any) -> None:
    """Gives a model of transformers our attention; its modules and parameters stay.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        An encoder of speech. If its attention is not transformers' default, it stays.

    Example
    -------
    >>> config = import_transformers().Wav2Vec2Config(
    ...     hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    ... )
    >>> model = import_transformers().Wav2Vec2Model(config)
    >>> quicken_attention(model)
    >>> model.config._attn_implementation, NAME in model.config.to_json_string()
    ('brainquant', False)
    """
    parts = [part for part in model.modules() if hasattr(part, "gru_rel_pos_linear")]
    for part in parts:  # of WavLM, which knows no other implementation than its own
        part.forward = partial(attend_with_gated_bias, part)
    if not parts and model.config._attn_implementation == "sdpa":
        transformers = import_transformers()
        masks = import_late("transformers.masking_utils")
        transformers.AttentionInterface.register(NAME, attend_held)
        transformers.AttentionMaskInterface.register(NAME, masks.sdpa_mask)
        model.config._attn_implementation = NAME


def is_quick(query_BHTD: torch.Tensor) -> bool:
    """Whether ``brainquant.models.attention`` is made for such inputs."""
    is_whole = query_BHTD.dtype in (torch.float32, torch.float64)
    return is_whole and query_BHTD.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def attend_held(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Outputs, (batch, frames, heads, dim of a head): an ``AttentionInterface`` of transformers."""
    if dropout and is_quick(query) and kwargs.get("position_bias") is None:
        scale = query.shape[3] ** -0.5 if scaling is None else scaling
        output_BHTD = attend(query, key, value, attention_mask, scale=scale, dropout=dropout)
        return output_BHTD.transpose(1, 2), None
    sdpa = import_late("transformers.integrations.sdpa_attention").sdpa_attention_forward
    options = {"dropout": dropout, "scaling": scaling, **kwargs}
    return sdpa(module, query, key, value, attention_mask, **options)


def attend_with_gated_bias(
    module: Any,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    index: int = 0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None, torch.Tensor | None]:
    """The forward of a ``WavLMAttention``, without its weights.

    transformers keeps a bias for each pair of frames of each clip, and six more tensors of this
    size in each layer. Here the layers share one bias of all pairs, shape (heads, frames, frames).
    """
    B, T, _ = hidden_states.shape
    if position_bias is None:  # the first layer makes it
        position_bias = module.compute_bias(T, T).contiguous()

    def by_head(x_BTE: torch.Tensor) -> torch.Tensor:
        return x_BTE.view(B, T, module.num_heads, -1).transpose(1, 2)

    gates_BHT2 = module.gru_rel_pos_linear(by_head(hidden_states)).unflatten(3, (2, 4)).sum(-1)
    inner_BHT, outer_BHT = gates_BHT2.sigmoid().unbind(-1)
    gate_BHT = inner_BHT * (outer_BHT * module.gru_rel_pos_const[..., 0] - 1.0) + 2.0
    query, key, value = (
        by_head(project(hidden_states)) for project in (module.q_proj, module.k_proj, module.v_proj)
    )
    valid_B11T = None if attention_mask is None else attention_mask.bool()[:, None, None]
    dropout = module.dropout if module.training else 0.0
    if is_quick(query):
        output_BHTD = attend(
            query, key, value, valid_B11T, scale=module.scaling, dropout=dropout,
            gate_BHT=gate_BHT, bias_HTT=position_bias,
        )  # fmt: skip
    else:
        bias_BHTT = (gate_BHT[..., None] * position_bias).to(query.dtype)
        if valid_B11T is not None:
            bias_BHTT = bias_BHTT.masked_fill(~valid_B11T, -torch.inf)
        output_BHTD = F.scaled_dot_product_attention(
            query, key, value, bias_BHTT, dropout, scale=module.scaling
        )
    output_BTE = module.out_proj(output_BHTD.transpose(1, 2).flatten(2))
    return output_BTE, None, position_bias
