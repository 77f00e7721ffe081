"""From waveforms to what is quantised and encoded.

Shape suffixes: B batch, L samples, T frames, F features, S stacks of frames, C channels.
"""

import math
from itertools import pairwise

import torch
from speechbrain.lobes.models.wav2vec import W2VLatentExtractor
from torch.nn import Dropout

from ..masking import lengths_to_mask
from .convolution import convolution, norm_gelu_convolution

STACKS_PROBED = 64  # a step of a front end reads fewer ahead


def pad_to_stacks(feats_BTF, lengths_B, stack):
    """Zeros for whatever is not speech, and zeros on the right up to whole stacks.

    (SpeechBrain 1.1.2 pads on the left in BEST-RQ: the stacks of a clip, and all of its codes,
    then depend on the longest clip beside it.)

    Arguments
    ---------
    feats_BTF : torch.Tensor
        Features, shape (batch, frames, features).
    lengths_B : torch.Tensor
        Valid frames of each utterance.
    stack : int
        Frames of one stack.

    Returns
    -------
    feats_BTF : torch.Tensor
        The number of frames is a multiple of the stack.

    Example
    -------
    >>> pad_to_stacks(torch.ones(1, 3, 1), torch.tensor([2]), 2).flatten()
    tensor([1., 1., 0., 0.])
    """
    valid_BT1 = lengths_to_mask(lengths_B, feats_BTF.shape[1])[..., None]
    feats_BTF = feats_BTF.masked_fill(~valid_BT1, 0.0)
    return torch.nn.functional.pad(feats_BTF, (0, 0, 0, -feats_BTF.shape[1] % stack))


def relative_lengths(lengths_B, num_frames):
    """Lengths as shares of a batch, for SpeechBrain's masks of the padding.

    The mask of ``InputNormalization`` (SpeechBrain 1.1.2) multiplies the shares by the number of
    frames again, in float32: 4 % of utterances would get one frame of padding into their mean and
    variance, and other codes than alone. Half a frame less rounds to the right frames.

    Example
    -------
    >>> share = relative_lengths(torch.tensor([101]), 152) * 152
    >>> bool((torch.arange(152) < share).sum() == 101)
    True
    """
    return (lengths_B - 0.5) / num_frames


def stack_frames(feats_BTF, stack):
    """Neighbouring frames side by side, shape (batch, frames / stack, features * stack)."""
    return feats_BTF.unflatten(1, (-1, stack)).flatten(2)


def stacks_ahead(front_end, num_features, stack):
    """How far ahead of its own stack a step of a front end reads, in stacks.

    With so many stacks of zeros after the longest clip, the last step of each clip reads the same
    in any batch. (Without them, the convolutions of SpeechBrain 1.1.2 mirror the last frames of the
    longest clip, and read what the first layers make of zeros after the others.)

    Arguments
    ---------
    front_end : torch.nn.Module
        Takes one step per stack, such as SpeechBrain's ``ConvolutionFrontEnd``. In evaluation mode.
    num_features : int
        Features of a frame.
    stack : int
        Frames of one stack.

    Returns
    -------
    num_stacks : int

    Raises
    ------
    ValueError
        Where the steps read all frames.

    Example
    -------
    >>> from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
    >>> sizes = {"input_shape": (1, 8, 20), "num_blocks": 1, "out_channels": [2], "strides": [4]}
    >>> stacks_ahead(ConvolutionFrontEnd(**sizes, num_layers_per_block=1).eval(), 20, 4)
    0
    >>> stacks_ahead(ConvolutionFrontEnd(**sizes, num_layers_per_block=5).eval(), 20, 4)
    1
    """
    parameter = next(front_end.parameters(), torch.empty(0))
    feats_BTF = parameter.new_zeros(1, 2 * STACKS_PROBED * stack, num_features)
    feats_BTF[:, STACKS_PROBED * stack :] = float("nan")  # makes NaN of all that it reaches
    with torch.no_grad():
        steps_S = front_end(feats_BTF).flatten(2).isfinite().all(-1)[0]
    if not steps_S.any():
        raise ValueError(
            f"front_end: its steps read {STACKS_PROBED} stacks ahead or more, so that what it "
            f"gives for a clip depends on the clips beside it; set front_end: to one whose steps "
            f"read a few frames, such as SpeechBrain's ConvolutionFrontEnd"
        )
    return STACKS_PROBED - int(steps_S.sum())


def normalise_utterances(x_BLX, lengths_B, eps=1e-5):
    """Zero mean and unit variance of each utterance over its own length; zeros after it.

    Samples of waveforms, (batch, samples), or each channel of frames, (batch, frames, channels).
    What varies by less than ``eps`` is not blown up to variance one.

    Example
    -------
    >>> wavs = normalise_utterances(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([2]))
    >>> wavs.round(decimals=2)
    tensor([[-1.,  1.,  0.]])
    """
    others = (1,) * (x_BLX.dim() - 2)
    valid_BLX = lengths_to_mask(lengths_B, x_BLX.shape[1]).unflatten(1, (-1, *others))
    count_BLX = lengths_B.clamp(min=1).view(-1, 1, *others)
    centred_BLX = (x_BLX - (x_BLX * valid_BLX).sum(1, keepdim=True) / count_BLX) * valid_BLX
    variance_BLX = centred_BLX.square().sum(1, keepdim=True) / count_BLX
    return centred_BLX / (variance_BLX + eps**2).sqrt()


class ScaleGradient(torch.autograd.Function):
    """The identity, with a gradient that is multiplied by a factor."""

    @staticmethod
    def forward(ctx, x, factor):
        """Returns x itself."""
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        """The gradient times the factor."""
        return grad * ctx.factor, None


class Wav2Vec2Extractor(W2VLatentExtractor):
    """SpeechBrain's convolutional extractor with wav2vec 2.0's penalty and gradient scaling.

    The paper multiplies the extractor's gradients by 0.1 and penalises the squared activations
    of its last convolution (https://arxiv.org/abs/2006.11477; the weight of 10 is fairseq's).
    SpeechBrain 1.1.2 does neither, and returns them only after a layer norm, which hides their
    size. Inputs, layers and ``state_dict`` are those of ``W2VLatentExtractor``.

    Arguments
    ---------
    gradient_scale : float
        Factor of the gradient that reaches the extractor.
    **kwargs : dict
        Arguments of ``speechbrain.lobes.models.wav2vec.W2VLatentExtractor``.

    Example
    -------
    >>> extractor = Wav2Vec2Extractor(out_channels=[8] * 7)
    >>> latents, penalty = extractor(torch.rand(2, 5000), torch.tensor([5000, 2500]))
    >>> latents.shape, bool(penalty > 0)
    (torch.Size([2, 14, 8]), True)
    """

    def __init__(self, gradient_scale=0.1, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(gradient_scale, (int, float)) or not 0 <= gradient_scale < math.inf:
            raise ValueError(
                f"gradient_scale must be a number from 0 up, got {gradient_scale!r}; set "
                f"gradient_scale: of the extractor in your YAML, as in gradient_scale: 0.1"
            )
        self.gradient_scale = gradient_scale

    def field_and_stride(self):
        """Samples that a frame sees, and from one frame to the next."""
        field, stride = 1, 1
        for kernel, step in zip(self.kernel_sizes, self.strides):
            field, stride = field + (kernel - 1) * stride, stride * step
        return field, stride

    def forward(self, wavs_BL, lengths_B):
        """Latents and their penalty.

        Arguments
        ---------
        wavs_BL : torch.Tensor
            Waveforms, shape (batch, samples).
        lengths_B : torch.Tensor
            Samples of each utterance.

        Returns
        -------
        latents_BTC : torch.Tensor
            After the layer norm, shape (batch, frames, channels).
        penalty : torch.Tensor
            Mean square of the activations before it, over valid frames.

        Raises
        ------
        ValueError
            Where no clip is long enough for a frame.
        """
        field, _ = self.field_and_stride()
        if wavs_BL.shape[1] < field:
            raise ValueError(
                f"a frame of the extractor sees {field} samples, but the longest clip has "
                f"{wavs_BL.shape[1]}; leave out clips that are shorter than {field} samples"
            )
        wavs_BL = normalise_utterances(wavs_BL, lengths_B)
        latents_BTC = self.convolve(wavs_BL[..., None])
        if self.gradient_scale != 1.0:
            latents_BTC = ScaleGradient.apply(latents_BTC, self.gradient_scale)
        frames_B = self.get_output_lengths(lengths_B).clamp(min=0)
        valid_BT = lengths_to_mask(frames_B, latents_BTC.shape[1])
        squares_BT = latents_BTC.float().square().mean(-1)
        penalty = (squares_BT * valid_BT).sum() / valid_BT.sum().clamp(min=1)
        return self.norm(latents_BTC), penalty

    def convolve(self, x_BTC):
        """What ``self.extractor`` gives, without transposing around each convolution."""
        if self.training and any(isinstance(m, Dropout) and m.p for m in self.extractor.modules()):
            return self.extractor(x_BTC)
        blocks = [list(block.convs.children())[:3] for block in self.extractor.children()]
        first, *_ = blocks[0]
        x_BTC = convolution(x_BTC, first.conv.weight, first.stride)
        for (_, norm, _), (conv, *_) in pairwise(blocks):
            norm = norm.norm
            x_BTC = norm_gelu_convolution(
                x_BTC, norm.weight, norm.bias, norm.eps, conv.conv.weight, conv.stride
            )
        _, norm, gelu = blocks[-1]
        return gelu(norm(x_BTC))
