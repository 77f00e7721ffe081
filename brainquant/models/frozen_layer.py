"""A layer of a frozen encoder, for targets.

Shape suffixes: B batch, L samples, T encoder frames, D dim.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from typing_extensions import Self, override

from ..functional.precision import full_precision
from .speech_encoder import SpeechEncoder


class FrozenLayer(torch.nn.Module):
    """Outputs of a layer of a frozen encoder, in float32 and without gradient.

    The encoder is no submodule: it has no place in ``parameters`` or in a ``state_dict``. It moves
    with ``.to`` and stays in evaluation mode. Its layers above the one that is read are taken away.

    Arguments
    ---------
    encoder : SpeechEncoder
        It belongs to this object from now on.
    layer : int
        Its layer, counted from 1.

    Raises
    ------
    ValueError
        If there is no such layer.

    Example
    -------
    >>> from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
    >>> from brainquant.models import MaskingEncoder, Wav2Vec2Encoder, Wav2Vec2Extractor
    >>> conformer = ConformerEncoder(2, 16, 32, 2, attention_type="regularMHA")
    >>> encoder = Wav2Vec2Encoder(
    ...     Wav2Vec2Extractor(out_channels=[8] * 7), MaskingEncoder(8, 16, conformer)
    ... )
    >>> frozen = FrozenLayer(encoder, layer=1)
    >>> frozen(torch.rand(1, 16000), torch.tensor([16000])).shape
    torch.Size([1, 48, 16])
    >>> len(frozen.encoder.layers), len(frozen.state_dict())
    (1, 0)
    """

    def __init__(self, encoder: SpeechEncoder, layer: int) -> None:
        super().__init__()
        number = len(encoder.layers)
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 < layer <= number:
            raise ValueError(f"there is no layer {layer!r}; the model has the layers 1 to {number}")
        del encoder.layers[layer:]
        self.layer = layer
        self._held = (encoder.eval().requires_grad_(False),)  # in a tuple it is no submodule

    @property
    def encoder(self) -> SpeechEncoder:
        """The frozen encoder."""
        return self._held[0]

    @override
    @torch.no_grad()
    def forward(self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        """Outputs of the layer, shape (batch, frames, dim).

        Arguments
        ---------
        wavs_BL : torch.Tensor
            Waveforms, zeros after each clip, shape (batch, samples).
        lengths_B : torch.Tensor
            Samples of each.
        """
        missing = max(0, self.encoder.min_samples - wavs_BL.shape[1])
        wavs_BL = F.pad(wavs_BL.float(), (0, missing))
        with full_precision(wavs_BL.device):
            return self.encoder.layer_outputs(wavs_BL, lengths_B, [self.layer])[0].float()

    @override
    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.encoder._apply(fn, recurse)
        return self
