"""Parts of encoders that SpeechBrain lacks, or that are slow to train there.

Shape suffixes: B batch, T frames, F features, C channels, O output channels, D dim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from speechbrain import Stage
from speechbrain.lobes.models import wav2vec
from speechbrain.lobes.models.transformer.TransformerASR import EncoderWrapper, TransformerASR
from speechbrain.nnet.CNN import Conv2d, get_padding_elem

from ..masking import lengths_to_mask
from .convolution import WindowsTimesKernel


class ChannelsLastConv2d(Conv2d):
    """SpeechBrain's convolution over frames and features, without its transposing.

    SpeechBrain 1.1.2 swaps frames and channels before each convolution and after it, so padding,
    layer norm and activation work on transposed memory. Here the frames stay (batch, frames,
    features, channels), a channels-last image. For ``conv_module`` of
    ``ConvolutionFrontEnd``; arguments, outputs and ``state_dict`` are those of ``Conv2d``.

    Arguments
    ---------
    *args, **kwargs : object
        Arguments of ``speechbrain.nnet.CNN.Conv2d``.

    Example
    -------
    >>> stock = Conv2d(8, 3, input_shape=(1, 20, 40, 4), stride=(2, 2))
    >>> ours = ChannelsLastConv2d(8, 3, input_shape=(1, 20, 40, 4), stride=(2, 2))
    >>> ours.load_state_dict(stock.state_dict())
    <All keys matched successfully>
    >>> x = torch.rand(1, 20, 40, 4)
    >>> torch.allclose(ours(x), stock(x), atol=1e-6)
    True
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolves.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, frames, features, channels), or without channels for one of them.

        Returns
        -------
        y : torch.Tensor
            Contiguous, shape (batch, frames, features, output channels).
        """
        if self.swap or self.skip_transpose or self.max_norm or self.padding == "causal":
            return super().forward(x)  # another order, or more than a convolution
        if max(self.kernel_size) == 1:
            # On CPUs without AVX-512, the backward of a channels-last 1 x 1 convolution with
            # strides writes beyond its memory (torch 2.11).
            return super().forward(x).contiguous()
        x_BTFC = x[..., None] if self.unsqueeze else x
        # Kernels, strides and dilations are SpeechBrain's: of features first, then of frames.
        conv: Any = self.conv
        weight_OCTF: Any = conv.weight.mT
        stride, dilation = self.stride[::-1], self.dilation[::-1]
        x_BCTF = x_BTFC.permute(0, 3, 1, 2)
        if self.padding == "same":
            padding = [
                get_padding_elem(self.in_channels, *sizes)
                for sizes in zip(self.stride, self.kernel_size, self.dilation)
            ]
            x_BCTF = F.pad(x_BCTF, sum(padding, []), mode=self.padding_mode)
        if x_BCTF.shape[1] == 1 and dilation == (1, 1):
            # A matrix product of all windows: convolutions of one channel are slow on CPUs.
            windows_BTF = x_BCTF[:, 0].unfold(1, weight_OCTF.shape[2], stride[0])
            windows_BTFTF = windows_BTF.unfold(2, weight_OCTF.shape[3], stride[1])
            return WindowsTimesKernel.apply(windows_BTFTF, weight_OCTF[:, 0], conv.bias)
        kernel_OCTF = weight_OCTF.contiguous(memory_format=torch.channels_last)
        y_BOTF = F.conv2d(x_BCTF, kernel_OCTF, conv.bias, stride, 0, dilation, conv.groups)
        return y_BOTF.permute(0, 2, 3, 1)


class MaskingEncoder(wav2vec.EncoderWrapper):
    """SpeechBrain's encoder of wav2vec 2.0, which puts a vector where frames are masked.

    SpeechBrain 1.1.2 waits for the device twice in each forward, to find the masked frames and the
    longest utterance. Arguments, outputs and ``state_dict`` are those of its ``EncoderWrapper``.

    Arguments
    ---------
    *args, **kwargs : object
        Arguments of ``speechbrain.lobes.models.wav2vec.EncoderWrapper``.

    Example
    -------
    >>> from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
    >>> conformer = ConformerEncoder(1, 8, 16, 2, attention_type="regularMHA")
    >>> encoder = MaskingEncoder(4, 8, conformer).eval()
    >>> latents_BTC = torch.rand(2, 5, 4)
    >>> mask_BT = torch.tensor([[False, True, True, False, False], [False] * 5])
    >>> stock = wav2vec.EncoderWrapper.forward(encoder, latents_BTC, torch.ones(2), mask=mask_BT)
    >>> ours = encoder(latents_BTC, torch.ones(2), mask=mask_BT)
    >>> torch.equal(ours["embeddings"], stock["embeddings"])
    True
    """

    def forward(
        self,
        latents: torch.Tensor,
        wav_lens: torch.Tensor | None = None,
        padding_mask: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Encodes.

        Arguments
        ---------
        latents : torch.Tensor
            Latents, shape (batch, frames, channels).
        wav_lens : torch.Tensor or None
            Lengths as shares of the frames, shape (batch,). Either these or
        padding_mask : torch.Tensor or None
            BoolTensor of shape (batch, frames), True after the end of an utterance.
        mask : torch.Tensor or None
            BoolTensor of shape (batch, frames), True where the encoder has to guess.

        Returns
        -------
        results : dict
            ``embeddings``, shape (batch, frames, dim); with a mask, ``num_masked`` and
            ``ratio_masked``.
        """
        results = {}
        x_BTD = self.dropout_encoder_input(self.input_projector(latents))
        if mask is not None:
            x_BTD = torch.where(mask[..., None], self.mask_emb.to(x_BTD.dtype), x_BTD)
            results["num_masked"] = mask.sum()
            results["ratio_masked"] = results["num_masked"] / mask.numel()
        if wav_lens is not None:
            frames = x_BTD.shape[1]
            padding_mask = ~lengths_to_mask(torch.round(wav_lens * frames), frames)
        x_BTD = x_BTD + self.positional_encoding(x_BTD)
        results["embeddings"], _ = self.latent_encoder(x_BTD, src_key_padding_mask=padding_mask)
        return results


class DynamicChunkEncoder(EncoderWrapper):
    """A Transformer encoder that learns to see chunks of the audio, as a streaming one has to.

    In training each batch has chunks of another size, and some have the whole utterance
    (https://arxiv.org/abs/2012.05481), so that one encoder serves at any latency. Otherwise it
    is SpeechBrain's ``EncoderWrapper``, ``state_dict`` included, and what SpeechBrain streams
    with, ``forward_streaming``, is there.

    Arguments
    ---------
    transformer : speechbrain.lobes.models.transformer.TransformerASR.TransformerASR
        A conformer that is not causal.
    sampler : callable
        Gives the chunks for a ``speechbrain.Stage``, or None for the whole utterance: SpeechBrain's
        ``DynChunkTrainConfigRandomSampler``. Its draws are from torch's global generator.

    Example
    -------
    >>> import torch
    >>> from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
    >>> from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig
    >>> transformer = TransformerASR(
    ...     tgt_vocab=1, input_size=8, d_model=8, nhead=2, num_encoder_layers=1,
    ...     num_decoder_layers=0, d_ffn=8, encoder_module="conformer", causal=False,
    ...     attention_type="RelPosMHAXL", positional_encoding=None, normalize_before=True,
    ... )
    >>> encoder = DynamicChunkEncoder(transformer, lambda stage: DynChunkTrainConfig(4)).eval()
    >>> x = torch.rand(1, 8, 8)
    >>> first = encoder(x)[:, :4]
    >>> x[:, 4:] = 0.0
    >>> bool((encoder(x)[:, :4] == first).all())  # the next chunk is not seen
    True
    """

    def __init__(self, transformer: TransformerASR, sampler: Callable[[Stage], Any]) -> None:
        super().__init__(transformer)
        self.sampler = sampler

    def forward(
        self, x: torch.Tensor, wav_lens: torch.Tensor | None = None, pad_idx: int = 0
    ) -> torch.Tensor:
        """Outputs for inputs of shape (batch, frames, input size), in chunks as the stage has them.

        Arguments
        ---------
        x : torch.Tensor
            Inputs.
        wav_lens : torch.Tensor or None
            Lengths as shares of the frames, shape (batch,).
        pad_idx : int
            As in SpeechBrain.

        Returns
        -------
        outputs : torch.Tensor
            Shape (batch, frames, dim).
        """
        chunks = self.sampler(Stage.TRAIN if self.training else Stage.VALID)
        return super().forward(x, wav_lens, pad_idx, dynchunktrain_config=chunks)


def has_parameters(module: torch.nn.Module) -> bool:
    """Whether a module has something to train.

    Example
    -------
    >>> has_parameters(torch.nn.Linear(1, 1)), has_parameters(torch.nn.GELU())
    (True, False)
    """
    return any(True for _ in module.parameters())
