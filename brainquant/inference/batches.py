"""A batch of waveforms for an encoder, and what it gives for their padding.

Shape suffixes: B batch, L samples, T frames, X any dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..functional.transfer import to_device
from ..masking import lengths_to_mask
from ..models import SpeechEncoder


def check_batch(
    wavs_BL: torch.Tensor, lengths_B: torch.Tensor | None, encoder: SpeechEncoder
) -> tuple[torch.Tensor, torch.Tensor]:
    """Waveforms that are long enough for a frame, with zeros after their ends, and lengths.

    The waveforms are on the device of the encoder, in float32.

    Raises
    ------
    ValueError
        If waveforms and lengths do not fit.
    """
    if wavs_BL.dim() != 2 or not wavs_BL.is_floating_point():
        raise ValueError(
            f"waveforms must be floats of shape (batch, samples), got {wavs_BL.dtype} of shape "
            f"{tuple(wavs_BL.shape)}; for one clip, use wav[None], and for 16-bit samples, "
            f"wav / 32768"
        )
    batch, num_samples = wavs_BL.shape
    if lengths_B is None:
        lengths_B = torch.full((batch,), num_samples)
    elif lengths_B.is_floating_point() or lengths_B.shape != (batch,):
        raise ValueError(
            f"lengths must be the samples of each of {batch} clips, a LongTensor, got "
            f"{lengths_B.dtype} of shape {tuple(lengths_B.shape)}; for SpeechBrain's shares, "
            f"use (wav_lens * wavs.shape[1]).round().long()"
        )
    elif batch and not 0 <= int(lengths_B.min()) <= int(lengths_B.max()) <= num_samples:
        raise ValueError(
            f"lengths must be from 0 to the {num_samples} samples of the batch, got "
            f"{lengths_B.tolist()}"
        )
    # A window of the features that is centred before the end of a clip reaches beyond it.
    device = next(encoder.parameters()).device
    wavs_BL = cut(wavs_BL.to(device).float(), to_device(lengths_B, device), 0.0)
    return F.pad(wavs_BL, (0, max(0, encoder.min_samples - num_samples))), lengths_B


def cut(x_BTX: torch.Tensor, lengths_B: torch.Tensor, value: float) -> torch.Tensor:
    """A value in place of what follows the end of each clip.

    Example
    -------
    >>> cut(torch.ones(2, 3), torch.tensor([1, 3]), -1)
    tensor([[ 1., -1., -1.],
            [ 1.,  1.,  1.]])
    """
    valid_BT = lengths_to_mask(lengths_B, x_BTX.shape[1])
    return x_BTX.masked_fill(~valid_BT.view(*valid_BT.shape, *[1] * (x_BTX.dim() - 2)), value)
