"""Frames of a layer of an encoder, streamed: memory holds a batch of them.

Shape suffixes: B batch, L samples, T frames of an utterance, N frames of all, I input dim.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from tqdm import tqdm

from ..models import SpeechEncoder


@dataclasses.dataclass
class Frames:
    """The frames of a layer, over all audio.

    Arguments
    ---------
    batches : callable
        Gets the number of a pass, from 1, and gives the batches of the audio in the order of this
        pass: the IDs of the clips, and their frames as float32, shape (frames, dim).
    layer : int
        0 for the quantiser's inputs, k for the outputs of encoder layer k.
    source : str
        What names the audio, for errors.
    progress : bool or None
        Whether to show a progress bar; None: on a terminal only.
    """

    batches: Callable[[int], Iterable[tuple[Sequence[str], np.ndarray]]]
    layer: int
    source: str
    progress: bool | None = None


def stream_frames(frames: Frames, num_frames: int, *, at_least: int) -> Iterator[np.ndarray]:
    """So many frames, in as many passes over the audio as needed, a batch at a time.

    Arguments
    ---------
    frames : Frames
        The audio.
    num_frames : int
        Frames to give in all.
    at_least : int
        Frames that the first pass must have.

    Yields
    ------
    x_NI : numpy.ndarray

    Raises
    ------
    ValueError
        If there is no such layer, too few frames, or a frame that is not finite.
    """
    seen = 0
    hidden = None if frames.progress is None else not frames.progress
    with tqdm(total=num_frames, unit="frame", unit_scale=True, disable=hidden) as progress:
        for number in itertools.count(1):
            for ids, x_NI in frames.batches(number):
                x_NI = x_NI[: num_frames - seen]
                if not np.isfinite(x_NI).all():
                    raise ValueError(
                        f"layer {frames.layer} is not finite for one of {', '.join(ids)}; take the "
                        f"broken audio out of {frames.source}"
                    )
                yield x_NI
                seen += len(x_NI)
                progress.update(len(x_NI))
                if seen == num_frames:
                    return
            if seen < at_least:
                raise ValueError(
                    f"the audio of {frames.source} has {seen} frames, too few for {at_least} "
                    f"clusters; ask for fewer, or give more audio"
                )


def in_blocks(arrays: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Rows of some arrays in blocks of a size; the last block has the rest.

    Example
    -------
    >>> [len(block) for block in in_blocks([np.zeros((3, 2)), np.zeros((4, 2))], 2)]
    [2, 2, 2, 1]
    """
    rest = None
    for array in arrays:
        rest = array if rest is None else np.concatenate([rest, array])
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    if rest is not None and len(rest):
        yield rest


@torch.no_grad()
def valid_frames(
    encoder: SpeechEncoder, wavs_BL: torch.Tensor, lengths_B: torch.Tensor, layer: int
) -> np.ndarray:
    """Frames of a batch without those of its padding, shape (frames, dim)."""
    if layer == 0:
        x_BTI, frames_B = encoder.quantiser_inputs(wavs_BL, lengths_B)
    else:
        check_layer(encoder, layer)
        (x_BTI,) = encoder.layer_outputs(wavs_BL, lengths_B, [layer])
        frames_B = encoder.count_frames(lengths_B)
    x_NI = torch.cat([x_TI[:frames] for x_TI, frames in zip(x_BTI, frames_B)])
    return x_NI.float().cpu().numpy()


def check_layer(encoder: SpeechEncoder, layer: int) -> None:
    """Raises a ValueError if an encoder has no such layer."""
    if not 0 <= layer <= len(encoder.layers):
        raise ValueError(
            f"there is no layer {layer}; --layer is 0 for the quantiser's inputs, or a layer "
            f"of the encoder, 1 to {len(encoder.layers)}"
        )


def describe_frames(
    encoder: SpeechEncoder, layer: int, num_frames: int, fingerprint: str | None
) -> dict[str, str]:
    """The metadata of a file of centroids: which frames they were fitted to.

    ``fingerprint`` is that of the ``PretrainedEncoder``; None if the layer has no parameters.
    """
    metadata = {
        "layer": str(layer),
        "frame_rate": str(encoder.sample_rate / encoder.stride),
        "frames": str(num_frames),
    }
    return metadata | ({} if fingerprint is None else {"fingerprint": fingerprint})
