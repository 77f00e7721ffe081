"""From waveforms to what is quantised and encoded.

Shape suffixes: B batch, L samples, T frames, F features, S stacks of frames, C channels.
"""

import torch
from speechbrain.processing import features
from speechbrain.processing.features import mean_std_update
from typing_extensions import override

from ..masking import lengths_to_mask

STACKS_PROBED = 64  # a step of a front end reads fewer ahead
# A channel of latents that varies by less over an utterance does not tell its frames apart.
LEAST_DEVIATION = 3e-3


def pad_to_stacks(feats_BTF: torch.Tensor, lengths_B: torch.Tensor, stack: int) -> torch.Tensor:
    """Zeros after the end of each utterance, and on the right up to whole stacks.

    (SpeechBrain 1.1.2 pads on the left in BEST-RQ, so the stacks of a clip and all of its codes
    depend on the longest clip beside it.)

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


def relative_lengths(lengths_B: torch.Tensor, num_frames: int) -> torch.Tensor:
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


def stack_frames(feats_BTF: torch.Tensor, stack: int) -> torch.Tensor:
    """Neighbouring frames side by side, shape (batch, frames / stack, features * stack)."""
    return feats_BTF.unflatten(1, (-1, stack)).flatten(2)


def stacks_ahead(front_end: torch.nn.Module, num_features: int, stack: int) -> int:
    """The number of stacks after its own that a step of a front end reads.

    With as many stacks of zeros after the longest clip, the last step of each clip reads the same
    in any batch. (Without them, the convolutions of SpeechBrain 1.1.2 mirror the last frames of the
    longest clip; after the other clips they read the outputs of the first layers for zeros.)

    Arguments
    ---------
    front_end : torch.nn.Module
        Makes one step per stack, such as SpeechBrain's ``ConvolutionFrontEnd``. In evaluation mode.
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
        If the steps read all frames.

    Example
    -------
    >>> from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
    >>> sizes = {"input_shape": (1, 8, 20), "num_blocks": 1, "out_channels": [2], "strides": [4]}
    >>> stacks_ahead(ConvolutionFrontEnd(**sizes, num_layers_per_block=1).eval(), 20, 4)
    0
    >>> stacks_ahead(ConvolutionFrontEnd(**sizes, num_layers_per_block=5).eval(), 20, 4)
    1
    """
    steps_S = _do_not_read(front_end, num_features, stack, slice(STACKS_PROBED * stack, None))
    if not steps_S.any():
        raise ValueError(
            f"front_end: its steps read {STACKS_PROBED} stacks ahead or more, so its "
            f"outputs for a clip depend on the clips beside it; set front_end: to one whose steps "
            f"read a few frames, such as SpeechBrain's ConvolutionFrontEnd"
        )
    return STACKS_PROBED - int(steps_S.sum())


def stacks_behind(front_end: torch.nn.Module, num_features: int, stack: int) -> int:
    """The number of stacks before its own that a step of a front end reads.

    Arguments are those of ``stacks_ahead``.
    """
    steps_S = _do_not_read(front_end, num_features, stack, slice(STACKS_PROBED * stack))
    return STACKS_PROBED - int(steps_S.sum())


@torch.no_grad()
def _do_not_read(
    front_end: torch.nn.Module, num_features: int, stack: int, frames: slice
) -> torch.Tensor:
    """Which steps do not read some of the frames of ``2 * STACKS_PROBED`` stacks."""
    parameter = next(front_end.parameters(), torch.empty(0))
    feats_BTF = parameter.new_zeros(1, 2 * STACKS_PROBED * stack, num_features)
    feats_BTF[:, frames] = float("nan")  # makes NaN of all that it reaches
    return front_end(feats_BTF).flatten(2).isfinite().all(-1)[0]


def normalise_utterances(
    x_BLX: torch.Tensor, lengths_B: torch.Tensor, eps: float = 1e-5
) -> torch.Tensor:
    """Zero mean and unit variance of each utterance over its own length; zeros after it.

    Normalises the samples of waveforms, (batch, samples), or each channel of frames, (batch,
    frames, channels). A channel that varies by less than ``eps`` is not scaled up to variance one.

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


class InputNormalization(features.InputNormalization):
    """SpeechBrain's normalisation of features, whose global statistics are buffers.

    In SpeechBrain 1.1.2 they are plain tensors: no ``state_dict`` has them, ``.to`` of a module
    that holds the normalisation leaves them on the CPU, and a step that is left out has
    changed them. Outputs are SpeechBrain's; audio without any statistics is left as it is.

    Arguments
    ---------
    *args, **kwargs : object
        Arguments of ``speechbrain.processing.features.InputNormalization``.

    Example
    -------
    >>> normalize = InputNormalization(norm_type="global")
    >>> _ = normalize(torch.tensor([[[1.0], [3.0]]]))
    >>> normalize.state_dict()["glob_mean"]
    tensor([2.])
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.norm_type == "global":
            del self.count, self.glob_mean, self.glob_std
            self.register_buffer("count", torch.tensor(0))
            self.register_buffer("glob_mean", torch.empty(0))
            self.register_buffer("glob_std", torch.empty(0))

    def allocate(self, num_features: int) -> None:
        """Gives the statistics their size, unless they have one."""
        if self.norm_type == "global" and not self.glob_mean.numel():
            self.glob_mean = self.glob_mean.new_zeros(num_features)
            self.glob_std = self.glob_std.new_ones(num_features)

    @override
    @torch.no_grad()
    def _update_global_stats(self, x: torch.Tensor, mask: torch.Tensor) -> None:
        self.allocate(x.shape[-1])
        statistics = mean_std_update(
            x, mask, (0, self.length_dim), int(self.count), self.glob_mean, self.glob_std
        )
        for name, value in zip(("count", "glob_mean", "glob_std"), statistics):
            getattr(self, name).copy_(torch.as_tensor(value))

    @override
    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        if isinstance(saved := state_dict.get(f"{prefix}glob_mean"), torch.Tensor):
            self.allocate(len(saved))
        super()._load_from_state_dict(state_dict, prefix, *args)

    @override
    def _load_statistics_dict(self, state: dict) -> dict:
        """Loads a file that SpeechBrain's class has saved."""
        if self.norm_type == "global":
            self.load_state_dict({name: torch.as_tensor(state[name]) for name in state})
        return state
