"""Encoders with random weights, small enough for minutes of audio in a moment."""

import torch
from speechbrain.lobes.features import MFCC, Fbank
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

from brainquant.models import (
    BestRQEncoder,
    DynamicChunkEncoder,
    InputNormalization,
    MaskingEncoder,
    Wav2Vec2Encoder,
    Wav2Vec2Extractor,
    quicken,
)


def best_rq(compute_features=None, chunks=None, normalize=None):
    """BEST-RQ; with ``chunks``, as after dynamic chunk training."""
    torch.manual_seed(0)
    compute_features = compute_features or Fbank(n_mels=16, sample_rate=16000)
    num_features = compute_features(torch.zeros(1, 1600)).shape[2]
    transformer = TransformerASR(
        tgt_vocab=1, input_size=-(-num_features // 4) * 4, d_model=16, nhead=2,
        num_encoder_layers=2, num_decoder_layers=0, d_ffn=32, dropout=0.0,
        encoder_module="conformer", attention_type="RelPosMHAXL", positional_encoding=None,
        normalize_before=True, causal=False,
    )  # fmt: skip
    front_end = ConvolutionFrontEnd(
        (8, 10, num_features), num_blocks=2, num_layers_per_block=1, out_channels=[4, 4],
        strides=[2, 2], residuals=[False, False], dropout=0.0,
    )  # fmt: skip
    if chunks:
        config = DynChunkTrainConfig(*chunks)
        transformer = DynamicChunkEncoder(transformer, lambda stage: config)
    normalize = normalize or InputNormalization(norm_type="sentence")
    encoder = BestRQEncoder(compute_features, normalize, front_end, transformer).eval()
    quicken(encoder)
    return encoder


def mfcc():
    """Features with derivatives and neighbours."""
    return MFCC(n_mels=8, n_mfcc=4, deltas=True, context=True)


def wav2vec2():
    torch.manual_seed(0)
    conformer = ConformerEncoder(2, 16, 32, 2, attention_type="regularMHA")
    encoder = Wav2Vec2Encoder(
        Wav2Vec2Extractor(out_channels=[8] * 7),
        MaskingEncoder(8, 16, conformer, dropout_encoder_input=0.0),
        normalise_targets=True,
    ).eval()
    quicken(encoder)
    return encoder
