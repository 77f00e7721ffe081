"""The convolutions of a model of transformers, faster and without padding.

Shape suffixes: B batch, L samples, T frames, C channels.
"""

from __future__ import annotations

from typing import Any

import torch

from ..models.first_convolution import GROUP, LAYER, NormedConvolution
from ..models.latents import make_latents


def convolve_held(
    model: Any, wavs_BL: torch.Tensor, samples_B: torch.Tensor, *, recompute: bool = False
) -> torch.Tensor:
    """Latents of waveforms: each clip gets what transformers gives it alone.

    In transformers the first group norm (of wav2vec2-base, HuBERT-base and WavLM-base) takes its
    mean and variance over the padding, too, and changes a clip of one second beside one of three
    by half of its norm.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        It has a ``feature_extractor``, whose parameters are used.
    wavs_BL : torch.Tensor
        Waveforms, shape (batch, samples).
    samples_B : torch.Tensor
        Samples of each, on the device of the waveforms.
    recompute : bool
        As for ``brainquant.models.latents.make_latents``.

    Returns
    -------
    latents_BTC : torch.Tensor
        Shape (batch, frames, channels).

    Example
    -------
    >>> from brainquant.huggingface.library import import_transformers
    >>> transformers = import_transformers()
    >>> model = transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(
    ...     hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    ...     conv_dim=[8] * 7,
    ... ))
    >>> wavs_BL = torch.rand(1, 4000)
    >>> ours = convolve_held(model, wavs_BL, torch.tensor([4000]))
    >>> torch.allclose(ours, model.feature_extractor(wavs_BL).mT, atol=1e-5)
    True
    """
    return make_latents(wavs_BL, samples_B, convolutions_of(model), recompute=recompute)


def convolutions_of(model: Any) -> list[NormedConvolution]:
    """The convolutions of the extractor of a model, with their norms."""
    return [_of_layer(layer) for layer in model.feature_extractor.conv_layers]


def check_extractor(config: Any) -> None:
    """Raises a ValueError if the convolutions of a config are not those of a public model."""
    if (activation := config.feat_extract_activation) != "gelu":
        raise ValueError(
            f"model: feat_extract_activation is {activation!r}, but only gelu, which all public "
            f"models have, can be continued; take another model"
        )


def _of_layer(layer: Any) -> NormedConvolution:
    """The convolution and the norm of a layer of the extractor."""
    conv, norm = layer.conv, getattr(layer, "layer_norm", None)
    stride = conv.stride[0]
    if norm is None:
        return NormedConvolution(conv.weight, stride, conv.bias)
    kind = GROUP if isinstance(norm, torch.nn.GroupNorm) else LAYER
    return NormedConvolution(conv.weight, stride, conv.bias, kind, norm.weight, norm.bias, norm.eps)
