"""What targets have to fit: a path, and the frames of the encoder that predicts them.

Shape suffixes: B batch, T frames, X any dimensions.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.nn.functional as F

from ..functional.transfer import to_device
from ..masking import lengths_to_mask
from ..models import SpeechEncoder


def check_path(**path: Any) -> str:
    """A path as text; a ValueError that names its key if it is none.

    Example
    -------
    >>> check_path(labels=2024)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: labels must be a path, got 2024; set labels: under the quantiser ..., in quotes ...
    """
    [(key, value)] = path.items()
    if isinstance(value, (str, os.PathLike)) and (text := os.fspath(value)):
        return text
    raise ValueError(
        f"{key} must be a path, got {value!r}; set {key}: under the quantiser in your YAML, in "
        f"quotes if it is a number"
    )


def check_rate(encoder: SpeechEncoder, rate: float, name: str, remedy: str) -> None:
    """Raises a ValueError if targets have another number of frames per second than an encoder.

    Arguments
    ---------
    encoder : SpeechEncoder
        The encoder that predicts the targets.
    rate : float
        Frames of the targets per second.
    name : str
        The key and the value that name the targets.
    remedy : str
        What to do about it.
    """
    ours = encoder.sample_rate / encoder.stride
    if not abs(ours - rate) <= 1e-6 * ours:  # nor if it is NaN
        raise ValueError(
            f"{name} has {rate:g} frames per second, but the encoder of this YAML has {ours:g}, "
            f"and needs a target for each; {remedy}"
        )


def fit_frames(
    x_BTX: torch.Tensor, frames_B: torch.Tensor, num_frames: int, value: float
) -> torch.Tensor:
    """As many frames as the encoder has, with a value after the end of each clip.

    At the same rate, two encoders differ by a frame at the end of a clip.

    Example
    -------
    >>> fit_frames(torch.ones(2, 3), torch.tensor([3, 1]), 4, -1.0)
    tensor([[ 1.,  1.,  1., -1.],
            [ 1., -1., -1., -1.]])
    """
    x_BTX = x_BTX[:, :num_frames]
    trailing = [0, 0] * (x_BTX.dim() - 2)
    x_BTX = F.pad(x_BTX, (*trailing, 0, num_frames - x_BTX.shape[1]), value=value)
    valid_BT = lengths_to_mask(to_device(frames_B, x_BTX.device), num_frames)
    return x_BTX.masked_fill(~valid_BT.view(*valid_BT.shape, *[1] * (x_BTX.dim() - 2)), value)
