"""Gives the layers of an encoder a form that ONNX has; they compute the same in evaluation mode."""

import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models import wav2vec
from speechbrain.lobes.models.transformer.Transformer import PositionalEncoding
from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
from speechbrain.nnet.attention import MultiheadAttention, RelPosEncXL, RelPosMHAXL
from speechbrain.nnet.CNN import Conv2d
from speechbrain.processing.features import STFT

from ...models import quick
from ...models.best_rq import BestRQEncoder
from ...models.extractor import Wav2Vec2Extractor
from ...models.layers import ChannelsLastConv2d, MaskingEncoder
from .front import OnnxBestRQEncoder, OnnxConv2d, OnnxFbank, OnnxSTFT, OnnxWav2Vec2Extractor
from .transformer import (
    OnnxConvolutionModule,
    OnnxMultiheadAttention,
    OnnxPositionalEncoding,
    OnnxRelPosEncXL,
    OnnxRelPosMHAXL,
    OnnxTransformerASR,
)

ONNX: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    BestRQEncoder: OnnxBestRQEncoder,
    ChannelsLastConv2d: OnnxConv2d,
    Conv2d: OnnxConv2d,
    Fbank: OnnxFbank,
    MultiheadAttention: OnnxMultiheadAttention,
    PositionalEncoding: OnnxPositionalEncoding,
    RelPosEncXL: OnnxRelPosEncXL,
    RelPosMHAXL: OnnxRelPosMHAXL,
    STFT: OnnxSTFT,
    TransformerASR: OnnxTransformerASR,
    Wav2Vec2Extractor: OnnxWav2Vec2Extractor,
    quick.QuickConvolutionModule: OnnxConvolutionModule,
    quick.QuickDropout: torch.nn.Dropout,
    quick.QuickMultiheadAttention: OnnxMultiheadAttention,
    quick.QuickPositionalEncoding: OnnxPositionalEncoding,
    quick.QuickRelPosMHAXL: OnnxRelPosMHAXL,
    wav2vec.EncoderWrapper: MaskingEncoder,
}


def make_exportable(module: torch.nn.Module) -> None:
    """Gives each layer of a module that has a twin here the class of that twin.

    Arguments
    ---------
    module : torch.nn.Module
        Changed in place, so pass a copy. It then computes in evaluation mode only.

    Example
    -------
    >>> stft = STFT(16000)
    >>> expected = stft(torch.ones(1, 800))
    >>> make_exportable(stft)
    >>> bool((stft(torch.ones(1, 800)) - expected).abs().max() < 1e-4)
    True
    """
    for part in module.eval().modules():
        if type(part) in ONNX:
            part.__class__ = ONNX[type(part)]
    for part in module.modules():
        if isinstance(part, (OnnxSTFT, OnnxFbank, OnnxPositionalEncoding)):
            part.prepare()
