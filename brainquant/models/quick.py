"""Layers of SpeechBrain's encoders, and torch's dropout: faster to train, or with a fault removed.

Shape suffixes: B batch, T frames, C channels, N chunks, W frames of a chunk and of its context.
"""

from collections import Counter

import torch
import torch.nn.functional as F
from speechbrain.lobes.models.transformer.Branchformer import BranchformerEncoderLayer
from speechbrain.lobes.models.transformer.Conformer import ConvolutionModule
from speechbrain.lobes.models.transformer.Transformer import PositionalEncoding
from speechbrain.nnet.attention import (
    MultiheadAttention,
    PositionalwiseFeedForward,
    RelPosMHAXL,
)
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig
from speechbrain.utils.logger import get_logger
from torch.func import functional_call
from typing_extensions import override

from .convolution import convolution, reflect_after
from .dropout import dropout

logger = get_logger(__name__)


class QuickDropout(torch.nn.Dropout):
    """Dropout that draws its masks faster on a CPU, see ``brainquant.models.dropout``."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Drops out in training."""
        if self.training and 0 < self.p < 1 and input.device.type == "cpu" and not self.inplace:
            return dropout(input, self.p)
        return super().forward(input)


class QuickFeedForward(PositionalwiseFeedForward):
    """SpeechBrain's feed-forward part of a layer, without its two transpositions.

    SpeechBrain 1.1.2 transposes to (frames, batch, dim). For frames in that order torch 2.14
    multiplies each frame by a copy of a weight that needs no gradient: in a frozen encoder the
    product took four times as long.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs for frames, shape (batch, frames, dim) as theirs."""
        return self.ffn(x)


class QuickConvolutionModule(ConvolutionModule):
    """SpeechBrain's convolutions of a conformer layer; they never read padding.

    SpeechBrain 1.1.2 masks the output only. Its depthwise convolution reads the hidden states of
    the padding, so the last frames of a clip depend on the other clips of the batch. Here it reads
    zeros after the end of each clip, as if the clip were alone.

    SpeechBrain also transposes to (batch, channels, frames). A depthwise convolution of that layout
    takes torch 2.11 about 20 times as long on a CPU as one of (batch, frames, channels), the
    layout that the frames already have. For a single clip the outputs equal SpeechBrain's, except
    for rounding; the ``state_dict`` is the same.
    """

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | None = None,
        dynchunktrain_config: DynChunkTrainConfig | None = None,
    ) -> torch.Tensor:
        """Convolves frames.

        Arguments
        ---------
        x : torch.Tensor
            Frames, shape (batch, frames, dim).
        mask : torch.Tensor or None
            BoolTensor of shape (batch, frames, 1), True in the padding.
        dynchunktrain_config : DynChunkTrainConfig or None
            Chunks: a frame sees nothing after the end of its own chunk.

        Returns
        -------
        y : torch.Tensor
            As ``x``, with zeros in the padding.

        Raises
        ------
        ValueError
            If a causal convolution gets chunks.
        """
        if self.causal and dynchunktrain_config is not None:
            raise ValueError(
                "causal must be False if there are chunks, got causal=True: in its chunk a "
                "frame sees both sides; set causal: False of the encoder in your YAML"
            )
        pointwise = self.bottleneck[0]
        assert isinstance(pointwise, torch.nn.Conv1d)
        x_BTC = F.linear(self.layer_norm(x), pointwise.weight[..., 0], pointwise.bias)
        x_BTC = F.glu(x_BTC)
        if mask is not None:
            x_BTC = x_BTC.masked_fill_(mask, 0.0)
        if dynchunktrain_config is not None:
            x_BTC = self.convolve_chunks(x_BTC, dynchunktrain_config.chunk_size)
        else:  # a causal convolution reads padding on the left only
            x_BTC = self.convolve(x_BTC, self.padding)[:, : x_BTC.shape[1]]
        y_BTC = self.after_conv(x_BTC)
        return y_BTC if mask is None else y_BTC.masked_fill_(mask, 0.0)

    def convolve(self, x_BTC: torch.Tensor, padding: int) -> torch.Tensor:
        """The depthwise convolution, with zeros on both sides."""
        conv = self.conv
        if x_BTC.device.type == "cpu" and x_BTC.dtype == torch.float32:
            # Not in bfloat16: with 16 channels or fewer torch 2.11 hangs on AVX-512.
            return convolution(
                x_BTC, conv.weight, 1, conv.bias, padding, conv.dilation[0], conv.groups
            )
        y_BCT = F.conv1d(x_BTC.mT, conv.weight, conv.bias, 1, padding, conv.dilation, conv.groups)
        return y_BCT.mT

    def convolve_chunks(self, x_BTC: torch.Tensor, chunk_size: int) -> torch.Tensor:
        """The same for each chunk with the frames on its left, and zeros on its right."""
        batch, frames, _ = x_BTC.shape
        x_BTC = F.pad(x_BTC, (0, 0, self.padding, -frames % chunk_size))
        x_BNCW = x_BTC.unfold(1, chunk_size + self.padding, chunk_size)
        x_BWC = F.pad(x_BNCW.flatten(0, 1), (0, self.padding)).mT
        return self.convolve(x_BWC, 0).unflatten(0, (batch, -1)).flatten(1, 2)[:, :frames]


class QuickRelPosMHAXL(RelPosMHAXL):
    """SpeechBrain's attention to relative positions, with a view as its shift.

    SpeechBrain 1.1.2 pads and cuts the scores of all positions: two copies forward, and two copies
    and three tensors of zeros backward. Outputs and ``state_dict`` are the same. SpeechBrain makes
    positions in float32, and a module of another dtype fails on them; here it attends in float32.
    """

    def forward(self, query, key, value, pos_embs, *args, **kwargs):
        """Outputs in the dtype of the module, and the weights if they are asked for."""
        dtype = self.linear_pos.weight.dtype
        if dtype == torch.float32:
            return super().forward(query, key, value, pos_embs, *args, **kwargs)
        parameters = {name: parameter.float() for name, parameter in self.named_parameters()}
        inputs = query.float(), key.float(), value.float(), pos_embs.float(), *args
        result = functional_call(self, parameters, inputs, kwargs)
        if isinstance(result, tuple):
            return result[0].to(dtype), *result[1:]
        return result.to(dtype)

    @override
    def rel_shift(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of pairs of frames, from those of positions (batch, heads, frames, positions)."""
        *_, frames, positions = x.shape
        if self.mask_pos_future or positions != 2 * frames - 1:
            return super().rel_shift(x)
        x = x.contiguous()
        shape, strides = (*x.shape[:3], frames), (*x.stride()[:2], positions - 1, 1)
        return x.as_strided(shape, strides, x.storage_offset() + frames - 1)


class QuickMultiheadAttention(MultiheadAttention):
    """SpeechBrain's attention; in training it gives None for the weights.

    Without weights torch uses ``scaled_dot_product_attention``, which is faster and holds no
    (frames, frames). SpeechBrain 1.1.2 asks for the weights in every layer, and drops them.

    With both masks the weights are None in evaluation, too: a chunk after the end of a clip is all
    padding, and torch gives NaN weights to a frame that attends to no frame.
    """

    def forward(
        self, *args, attn_mask=None, key_padding_mask=None, return_attn_weights=True, **kwargs
    ):
        """Outputs and weights, or None."""
        kwargs |= {"attn_mask": attn_mask, "key_padding_mask": key_padding_mask}
        both_masks = attn_mask is not None and key_padding_mask is not None
        if not (return_attn_weights and (self.training or both_masks)):
            return super().forward(*args, return_attn_weights=return_attn_weights, **kwargs)
        return super().forward(*args, return_attn_weights=False, **kwargs), None


class QuickBranchformerEncoderLayer(BranchformerEncoderLayer):
    """SpeechBrain's layer of a branchformer; its convolution never reads padding.

    SpeechBrain 1.1.2 does not mask the convolution. After the end of a clip it reads the hidden
    states of the padding, or the mirror image of the last frames if the clip is the longest. Here
    it always reads the mirror image.
    """

    def forward(self, x, src_mask=None, src_key_padding_mask=None, pos_embs=None):
        """Frames, shape (batch, frames, dim), and attention weights."""
        to_attend_BTC, to_convolve_BTC = self.norm_mhsa(x), self.norm_conv(x)
        attended_BTC, weights = self.mha_layer(
            to_attend_BTC, to_attend_BTC, to_attend_BTC, attn_mask=src_mask,
            key_padding_mask=src_key_padding_mask, pos_embs=pos_embs,
        )  # fmt: skip
        if src_key_padding_mask is not None:
            reach = self.convolution_branch.csgu.conv.kernel_size // 2
            lengths_B = (~src_key_padding_mask).sum(1)
            to_convolve_BTC = reflect_after(to_convolve_BTC, lengths_B, reach)
        convolved_BTC = self.convolution_branch(to_convolve_BTC)[:, : x.shape[1]]
        branches = [self.dropout(attended_BTC), self.dropout(convolved_BTC)]
        return x + self.dropout(self.merge_proj(torch.cat(branches, dim=-1))), weights


class QuickPositionalEncoding(PositionalEncoding):
    """SpeechBrain's sines of absolute positions, for clips of any length.

    SpeechBrain 1.1.2 has a table of 2500 positions (50 s of wav2vec 2.0) and fails on a longer
    clip. The ``state_dict`` keeps that table.
    """

    pe: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The encoding of frames, shape (1, frames, dim)."""
        if x.shape[1] <= self.max_len:
            return super().forward(x)
        return QuickPositionalEncoding(x.shape[2], x.shape[1]).pe.to(self.pe)


QUICK: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    torch.nn.Dropout: QuickDropout,
    BranchformerEncoderLayer: QuickBranchformerEncoderLayer,
    ConvolutionModule: QuickConvolutionModule,
    MultiheadAttention: QuickMultiheadAttention,
    PositionalwiseFeedForward: QuickFeedForward,
    PositionalEncoding: QuickPositionalEncoding,
    RelPosMHAXL: QuickRelPosMHAXL,
}


def quicken(module: torch.nn.Module) -> None:
    """Gives each layer of a module that has a ``Quick`` twin the class of that twin.

    The twins train faster, and their outputs for a clip do not depend on the other clips of its
    batch. Parameters, ``state_dict`` and arguments stay SpeechBrain's. A line in the log says what
    was replaced.

    Arguments
    ---------
    module : torch.nn.Module
        Changed in place. Subclasses of SpeechBrain's layers stay as they are.

    Example
    -------
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.1))
    >>> quicken(model)
    >>> model[1]
    QuickDropout(p=0.1, inplace=False)
    """
    replaced = Counter()
    for part in module.modules():
        if type(part) in QUICK:
            replaced[type(part).__name__] += 1
            part.__class__ = QUICK[type(part)]
    if replaced:
        layers = ", ".join(f"{number} x {name}" for name, number in sorted(replaced.items()))
        logger.info(
            f"Layers that compute faster and without padding, from brainquant.models.quick: "
            f"{layers}; to keep the original layers, set quick_layers: False"
        )
