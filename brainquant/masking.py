"""Which frames are hidden from the encoder.

Shape suffixes: B batch, T frames, S positions at which a span may start.
"""

import torch


def lengths_to_mask(lengths_B: torch.Tensor, num_frames: int) -> torch.Tensor:
    """True for the frames inside each utterance, shape (batch, num_frames).

    Example
    -------
    >>> lengths_to_mask(torch.tensor([1, 3]), 3).int()
    tensor([[1, 0, 0],
            [1, 1, 1]], dtype=torch.int32)
    """
    return torch.arange(num_frames, device=lengths_B.device) < lengths_B[:, None]


def span_mask(
    lengths_B: torch.Tensor,
    num_frames: int,
    mask_ratio: float,
    mask_length: int,
    *,
    align: int = 1,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Draws spans of masked frames for each utterance, inside its valid frames.

    The number of spans is ``mask_ratio * length / mask_length``, rounded up or down at random, so
    that the expected share of masked frames is the ratio for any utterance that is as long as a
    span. Spans are whole and do not overlap; every arrangement of them is equally likely.
    (SpeechBrain 1.1.2 masks 67 % instead of 49 % in wav2vec 2.0, a fifth of it in broken spans. In
    BEST-RQ it masks only frames that the shortest utterance of the batch has.)

    wav2vec 2.0 starts spans of 10 frames with probability 0.065 (https://arxiv.org/abs/2006.11477):
    that masks a share of 0.49.

    Arguments
    ---------
    lengths_B : torch.Tensor
        Valid frames of each utterance, LongTensor of shape (batch,).
    num_frames : int
        Frames of the padded batch.
    mask_ratio : float
        Share of valid frames to mask, from 0 to 1.
    mask_length : int
        Frames of a span.
    align : int
        Spans start at multiples of this number, the frames of one target.
    generator : torch.Generator or None
        On the device of ``lengths_B``; None is the global generator.

    Returns
    -------
    mask_BT : torch.Tensor
        BoolTensor of shape (batch, num_frames), True where masked. An utterance that is shorter
        than a span is not masked.

    Example
    -------
    >>> mask = span_mask(torch.tensor([40, 8]), 40, 0.5, 4)
    >>> mask.sum(dim=1)
    tensor([20,  4])
    """
    device = lengths_B.device
    block = -(-mask_length // align)  # a span takes so many units of `align` frames
    # The last block may end after the utterance, if its span does not.
    units_B = (lengths_B + block * align - mask_length) // align
    B, S = len(lengths_B), max(num_frames // align + 1, 1)

    spans_B = mask_ratio * lengths_B / mask_length
    spans_B = (spans_B + torch.rand(B, generator=generator, device=device)).floor()
    spans_B = torch.minimum(spans_B.long(), units_B // block)

    # To place n blocks among u units: choose n of u - n * (block - 1) starts, then shift each by
    # the blocks before it.
    starts_B1 = (units_B - spans_B * (block - 1))[:, None]
    order_BS = torch.rand(B, S, generator=generator, device=device)
    order_BS = order_BS.masked_fill(torch.arange(S, device=device) >= starts_B1, 2.0)
    chosen_BS = order_BS.argsort(dim=1).argsort(dim=1) < spans_B[:, None]
    shift_BS = (chosen_BS.cumsum(1) - 1) * (block - 1)
    starts_BS = (torch.arange(S, device=device) + shift_BS) * align

    edges_BT = torch.zeros(B, num_frames + mask_length + align + 1, device=device)
    last = edges_BT.shape[1] - 1  # beyond every frame: for the starts that were not chosen
    edges_BT.scatter_add_(1, torch.where(chosen_BS, starts_BS, last), chosen_BS.float())
    ends_BS = torch.where(chosen_BS, starts_BS + mask_length, last)
    edges_BT.scatter_add_(1, ends_BS, -chosen_BS.float())
    return edges_BT.cumsum(1)[:, :num_frames] > 0.5


def stack_mask(mask_BT: torch.Tensor, stack: int) -> torch.Tensor:
    """True for the stacks whose frames are all masked.

    Arguments
    ---------
    mask_BT : torch.Tensor
        BoolTensor of shape (batch, frames); the number of frames is a multiple of the stack.
    stack : int
        Frames of one stack.

    Returns
    -------
    mask_BS : torch.Tensor
        BoolTensor of shape (batch, frames / stack).

    Example
    -------
    >>> stack_mask(torch.tensor([[True, True, True, False]]), 2)
    tensor([[ True, False]])
    """
    return mask_BT.unflatten(1, (-1, stack)).all(-1)


def true_indices(mask_BT: torch.Tensor) -> torch.Tensor:
    """The indices of the frames that are True, in the flattened mask.

    Example
    -------
    >>> true_indices(torch.tensor([[True, False], [True, True]]))
    tensor([0, 2, 3])
    """
    return mask_BT.flatten().nonzero()[:, 0]
