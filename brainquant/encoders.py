"""Parts of encoders that SpeechBrain lacks, or has in a form that is slow to train.

Shape suffixes: B batch, T frames, F features, C channels, O output channels, D dim.
"""

import torch
import torch.nn.functional as F
from speechbrain import Stage
from speechbrain.lobes.models import wav2vec
from speechbrain.lobes.models.transformer.Conformer import ConvolutionModule
from speechbrain.lobes.models.transformer.TransformerASR import EncoderWrapper
from speechbrain.nnet.attention import MultiheadAttention, RelPosMHAXL
from speechbrain.nnet.CNN import Conv2d, get_padding_elem

from .functional.convolution import WindowsTimesKernel, convolution
from .functional.dropout import dropout
from .masking import lengths_to_mask


class ChannelsLastConv2d(Conv2d):
    """SpeechBrain's convolution over frames and features, without its transposing.

    SpeechBrain 1.1.2 swaps frames and channels before each convolution and again after it, and
    padding, layer norm and activation work on memory in that order. Here the frames stay as they
    are, (batch, frames, features, channels), as a channels-last image. For ``conv_module`` of
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

    def forward(self, x):
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
        weight_OCTF, stride, dilation = self.conv.weight.mT, self.stride[::-1], self.dilation[::-1]
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
            return WindowsTimesKernel.apply(windows_BTFTF, weight_OCTF[:, 0], self.conv.bias)
        kernel_OCTF = weight_OCTF.contiguous(memory_format=torch.channels_last)
        y_BOTF = F.conv2d(
            x_BCTF, kernel_OCTF, self.conv.bias, stride, 0, dilation, self.conv.groups
        )
        return y_BOTF.permute(0, 2, 3, 1)


class QuickDropout(torch.nn.Dropout):
    """Dropout whose masks a CPU draws quickly, see ``brainquant.functional.dropout``."""

    def forward(self, x):
        """Drops out in training."""
        if self.training and 0 < self.p < 1 and x.device.type == "cpu" and not self.inplace:
            return dropout(x, self.p)
        return super().forward(x)


class QuickConvolutionModule(ConvolutionModule):
    """SpeechBrain's convolutions of a conformer layer, without their transposing.

    SpeechBrain 1.1.2 runs them on (batch, channels, frames): there torch 2.11 takes some 20 times
    as long for a depthwise convolution on a CPU as for a channels-last image, which frames are as
    they come. Outputs are the same but for rounding, and so is the ``state_dict``.
    """

    def forward(self, x, mask=None, dynchunktrain_config=None):
        """Convolves frames, shape (batch, frames, dim); zeros where the mask is True."""
        if self.causal or dynchunktrain_config is not None:
            return super().forward(x, mask, dynchunktrain_config)
        pointwise, depthwise = self.bottleneck[0], self.conv
        x_BTC = F.linear(self.layer_norm(x), pointwise.weight[..., 0], pointwise.bias)
        x_BTC = F.glu(x_BTC)
        if x_BTC.device.type == "cpu" and x_BTC.dtype == torch.float32:
            # (In bfloat16, 16 channels or fewer never come to an end: torch 2.11 with AVX-512.)
            padding, dilation = depthwise.padding[0], depthwise.dilation[0]
            x_BTC = convolution(
                x_BTC, depthwise.weight, 1, depthwise.bias, padding, dilation, depthwise.groups
            )
        else:
            x_BTC = depthwise(x_BTC.mT).mT
        y_BTC = self.after_conv(x_BTC)
        return y_BTC if mask is None else y_BTC.masked_fill_(mask, 0.0)


class QuickRelPosMHAXL(RelPosMHAXL):
    """SpeechBrain's attention to relative positions, whose shift is a view.

    SpeechBrain 1.1.2 pads the scores of all positions and cuts them out again, which is two copies
    forward and as many, and three times zeros, backward. Outputs and ``state_dict`` are the same.
    """

    def rel_shift(self, x):
        """Scores of positions, (batch, heads, frames, 2 * frames - 1), by frame and frame."""
        *_, frames, positions = x.shape
        if self.mask_pos_future or positions != 2 * frames - 1:
            return super().rel_shift(x)
        x = x.contiguous()
        shape, strides = (*x.shape[:3], frames), (*x.stride()[:2], positions - 1, 1)
        return x.as_strided(shape, strides, x.storage_offset() + frames - 1)


class QuickMultiheadAttention(MultiheadAttention):
    """SpeechBrain's attention, which in training gives None for the weights.

    torch has to compute them in a slower way than ``scaled_dot_product_attention``, which holds no
    (frames, frames); SpeechBrain 1.1.2 asks for them in every layer, and drops them.
    """

    def forward(self, *args, return_attn_weights=True, **kwargs):
        """Outputs and weights, or None."""
        if not (self.training and return_attn_weights):
            return super().forward(*args, return_attn_weights=return_attn_weights, **kwargs)
        return super().forward(*args, return_attn_weights=False, **kwargs), None


QUICK = {
    torch.nn.Dropout: QuickDropout,
    ConvolutionModule: QuickConvolutionModule,
    MultiheadAttention: QuickMultiheadAttention,
    RelPosMHAXL: QuickRelPosMHAXL,
}


def quicken(module):
    """Gives the parts of a module that are slow to train the forward of their ``Quick`` twins.

    Example
    -------
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.1))
    >>> quicken(model)
    >>> model[1]
    QuickDropout(p=0.1, inplace=False)
    """
    for part in module.modules():
        if type(part) in QUICK:
            part.__class__ = QUICK[type(part)]


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

    def forward(self, latents, wav_lens=None, padding_mask=None, mask=None):
        """Encodes.

        Arguments
        ---------
        latents : torch.Tensor
            Latents, shape (batch, frames, channels).
        wav_lens : torch.Tensor or None
            Lengths as shares of the frames, shape (batch,); in the place of
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

    def __init__(self, transformer, sampler):
        super().__init__(transformer)
        self.sampler = sampler

    def forward(self, x, wav_lens=None, pad_idx=0):
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
