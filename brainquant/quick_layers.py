"""Layers of SpeechBrain's encoders, and torch's dropout, with a forward that is quicker to train.

Shape suffixes: B batch, T frames, C channels.
"""

import torch
import torch.nn.functional as F
from speechbrain.lobes.models.transformer.Conformer import ConvolutionModule
from speechbrain.nnet.attention import MultiheadAttention, RelPosMHAXL

from .functional.convolution import convolution
from .functional.dropout import dropout


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
