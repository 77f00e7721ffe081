"""Parts of Transformers in operators that ONNX has, for batches and clips of any size.

Shape suffixes: B batch, T frames, C channels, D dim, H heads, N chunks, W frames of a chunk and of
its context.
"""

import math

import torch
import torch.nn.functional as F
from speechbrain.lobes.models.transformer.Transformer import PositionalEncoding
from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
from speechbrain.nnet.attention import MultiheadAttention, RelPosEncXL, RelPosMHAXL
from typing_extensions import override

from ...masking import lengths_to_mask
from ...models.quick import QuickConvolutionModule

# Added to the scores of frames that must not be attended to. With minus infinity a frame of the
# padding, which may attend to nothing, would be NaN.
NOT_ATTENDED = -1e30


class OnnxTransformerASR(TransformerASR):
    """SpeechBrain's encoder, whose masks do not fix the size of the batch."""

    @override
    def encode(self, src, wav_len, pad_idx=0, dynchunktrain_config=None) -> torch.Tensor:
        T = src.shape[1]
        padding_BT = ~lengths_to_mask(torch.round(wav_len * T), T)
        frame_T, chunks = torch.arange(T), dynchunktrain_config
        hidden_TT = frame_T > frame_T[:, None] if self.causal else None
        if chunks is not None:
            chunk_T = frame_T // chunks.chunk_size
            hidden_TT = chunk_T > chunk_T[:, None]
            if (left := chunks.left_context_size) is not None:
                hidden_TT = hidden_TT | (chunk_T + left < chunk_T[:, None])
        src, positions = self.custom_src_module(src), None
        if self.attention_type == "RelPosMHAXL":
            positions = self.positional_encoding(src)
        elif self.positional_encoding_type == "fixed_abs_sine":
            src = src + self.positional_encoding(src)
        return self.encoder(
            src=src, src_mask=hidden_TT, src_key_padding_mask=padding_BT, pos_embs=positions,
            dynchunktrain_config=chunks,
        )[0]  # fmt: skip


class OnnxPositionalEncoding(PositionalEncoding):
    """Sines of absolute positions, computed for as many frames as there are."""

    pe: torch.Tensor
    rates: torch.Tensor

    def prepare(self) -> None:
        """Makes the angles from one frame to the next: another rounding adds up over the frames."""
        dim = self.pe.shape[2]
        rates_D = torch.exp(torch.arange(0, dim, 2).float() * -(math.log(10000.0) / dim))
        self.register_buffer("rates", rates_D)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The encoding, shape (1, frames, dim)."""
        angles_TD = torch.arange(x.shape[1]).float()[:, None] * self.rates
        return torch.stack([angles_TD.sin(), angles_TD.cos()], -1).flatten(1)[None]


class OnnxRelPosEncXL(RelPosEncXL):
    """Sines of relative positions, for ``OnnxRelPosMHAXL``: with one position more, the first."""

    inv_freq: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The encoding, shape (1, 2 * frames, dim); SpeechBrain's depends on distances only."""
        T = x.shape[1]
        distances_T = torch.arange(-T, T).abs().float()
        angles_TD = distances_T[:, None] * self.inv_freq
        return torch.stack([angles_TD.sin(), angles_TD.cos()], -1).flatten(1)[None]


class OnnxRelPosMHAXL(RelPosMHAXL):
    """Attention to relative positions, which shifts the scores by reading them from T on."""

    def forward(self, query, key, value, pos_embs, key_padding_mask, attn_mask=None, **kwargs):
        """Outputs, shape (batch, frames, dim), and None."""
        B, T, _ = query.shape
        H, D = self.num_heads, self.head_dim
        query, key, value = F.linear(query, self.in_proj_weight).view(B, T, H, 3 * D).chunk(3, -1)
        if self.vbias is not None:
            value = value + self.value_bias_weight.view(1, 1, H, D)
        positions = self.linear_pos(pos_embs).view(1, 2 * T, H, D)
        content, place = (
            ((query + bias.view(1, 1, H, D)) * self.scale).transpose(1, 2)
            for bias in (self.pos_bias_u, self.pos_bias_v)
        )
        # Rows of 2 T scores read as rows of 2 T - 1: each begins one position before the last.
        shifted = (place @ positions.permute(0, 2, 3, 1)).view(B, H, 2 * T * T)[:, :, T:]
        scores = content @ key.permute(0, 2, 3, 1) + shifted.view(B, H, T, 2 * T - 1)[..., :T]
        return self.out_proj(attend(scores, value, key_padding_mask, attn_mask)), None


class OnnxMultiheadAttention(MultiheadAttention):
    """torch's attention without its fast path, whose operator ONNX lacks."""

    def forward(self, query, key, value, attn_mask=None, key_padding_mask=None, **kwargs):
        """Outputs, shape (batch, frames, dim), and None."""
        att = self.att
        B, T, D = query.shape
        projected = F.linear(query, att.in_proj_weight, att.in_proj_bias)
        query, key, value = projected.view(B, T, 3, att.num_heads, -1).unbind(2)
        query = query * (D // att.num_heads) ** -0.5
        scores = query.transpose(1, 2) @ key.permute(0, 2, 3, 1)
        return att.out_proj(attend(scores, value, key_padding_mask, attn_mask)), None


def attend(scores_BHTT, value_BTHD, padding_BT, hidden_TT) -> torch.Tensor:
    """Weighted sums of values, shape (batch, frames, heads * dim)."""
    added_B11T = torch.where(padding_BT, NOT_ATTENDED, 0.0)[:, None, None]
    if hidden_TT is not None:
        added_B11T = added_B11T + torch.where(hidden_TT, NOT_ATTENDED, 0.0)
    weights_BHTT = (scores_BHTT + added_B11T).softmax(-1)
    return (weights_BHTT @ value_BTHD.transpose(1, 2)).transpose(1, 2).flatten(2)


class OnnxConvolutionModule(QuickConvolutionModule):
    """The convolutions of a conformer layer, without functions of autograd."""

    @override
    def convolve(self, x_BTC: torch.Tensor, padding: int) -> torch.Tensor:
        conv = self.conv
        y_BCT = F.conv1d(x_BTC.mT, conv.weight, conv.bias, 1, padding, conv.dilation, conv.groups)
        return y_BCT.mT

    @override
    def convolve_chunks(self, x_BTC: torch.Tensor, chunk_size: int) -> torch.Tensor:
        B, T, C = x_BTC.shape
        chunks, W = (T + chunk_size - 1) // chunk_size, self.padding + chunk_size
        x_BTC = F.pad(x_BTC, (0, 0, self.padding, chunk_size))
        frame_NW = torch.arange(chunks)[:, None] * chunk_size + torch.arange(W)
        x_BWC = x_BTC.index_select(1, frame_NW.flatten()).view(B * chunks, W, C)
        x_BWC = F.pad(x_BWC, (0, 0, 0, self.padding))
        y_BTC = self.convolve(x_BWC, 0).reshape(B, chunks * chunk_size, C)
        return y_BTC.index_select(1, torch.arange(T))
