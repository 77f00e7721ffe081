"""Fits the centroids of a quantiser to the audio of a recipe, or to that of any corpus.

The frames are streamed: memory holds the model, a batch and one block of frames, whatever the
size of the corpus.

Shape suffixes: B batch, L samples, T frames of an utterance, N frames of all, I input dim.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from .data.silence import check_sound
from .functional.imports import import_late
from .models import SpeechEncoder
from .monitoring.counts import CodeMonitor, code_statistics

logger = get_logger(__name__)

FRAMES_PER_CLUSTER = 10  # of a block


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


def fit_kmeans(
    brain: Any, loader: Any, *, layer: int, clusters: int, num_frames: int
) -> tuple[dict[str, torch.Tensor], str]:
    """Centroids of the frames of a recipe's training audio, for ``KMeansQuantizer``.

    Arguments
    ---------
    brain : PretrainBrain
        Gives the frames; its ``seed`` draws the first centroids.
    loader : torch.utils.data.DataLoader
        Of the training audio.
    layer : int
        0 for the quantiser's inputs, k for the outputs of encoder layer k.
    clusters : int
        Number of centroids.
    num_frames : int
        Frames to fit on, in as many passes over the corpus as needed.

    Returns
    -------
    tensors : dict
        ``centroids``, float32, shape (clusters, dim).
    summary : str
        How well the centroids fit the second half of the frames.

    Raises
    ------
    ValueError
        If there is no such layer, there are fewer frames than clusters, or the audio is silent.
    """
    check_sizes(clusters, num_frames)
    seed = brain.hparams.seed
    check_sound(loader.dataset, torch.Generator().manual_seed(seed))
    frames = recipe_frames(brain, loader, layer)
    return fit_centroids(frames, clusters=clusters, num_frames=num_frames, seed=seed)


def fit_centroids(
    frames: Frames, *, clusters: int, num_frames: int, seed: int
) -> tuple[dict[str, torch.Tensor], str]:
    """Centroids of frames: as ``fit_kmeans``, for any audio.

    Mini-batch k-means from scikit-learn: k-means++ on the first block, then a step for each
    block. HuBERT fits its targets so (https://arxiv.org/abs/2106.07447).

    Example
    -------
    >>> def batches(number):
    ...     yield ["a", "b"], np.array([[0.0], [8.0], [0.2], [8.2]], np.float32)
    >>> frames = Frames(batches, layer=1, source="two clips")
    >>> tensors, _ = fit_centroids(frames, clusters=2, num_frames=400, seed=0)
    >>> sorted(round(x, 1) for x in tensors["centroids"].flatten().tolist())
    [0.1, 8.1]
    """
    check_sizes(clusters, num_frames)
    block = FRAMES_PER_CLUSTER * clusters
    MiniBatchKMeans = import_late("sklearn.cluster").MiniBatchKMeans
    # As in HuBERT, the centroid of a rare cluster stays where it is.
    kmeans = MiniBatchKMeans(clusters, batch_size=block, reassignment_ratio=0.0, random_state=seed)
    seen, inertia, monitor = 0, 0.0, CodeMonitor(1, clusters)
    for x_NI in in_blocks(stream_frames(frames, num_frames, at_least=clusters), block):
        kmeans.partial_fit(x_NI)
        seen += len(x_NI)
        if seen > num_frames / 2:
            inertia += kmeans.inertia_
            monitor.update(torch.from_numpy(kmeans.labels_).long()[:, None])
    codes = code_statistics(monitor.counts)
    summary = (
        f"{seen} frames, {clusters} clusters, inertia {inertia / codes['frames']:.4g} per frame, "
        f"perplexity {codes['code_perplexity_sum']:.1f}"
    )
    return {"centroids": torch.from_numpy(kmeans.cluster_centers_)}, summary


def check_sizes(clusters: int, num_frames: int) -> None:
    """Raises a ValueError if there are fewer frames than clusters, or no clusters."""
    if not 0 < clusters <= num_frames:
        raise ValueError(
            f"--clusters must be at least 1 and at most --frames, got --clusters {clusters}, "
            f"--frames {num_frames}; 1000 frames for each cluster are enough"
        )


def load_weights(brain: Any, layer: int) -> None:
    """Loads the last checkpoint of the run, if the frames of a layer depend on parameters.

    Raises
    ------
    ValueError
        If there is no checkpoint, or it is one of another model.
    """
    encoder = brain.raw("encoder").eval()
    wavs_BL = torch.zeros(1, encoder.sample_rate, device=brain.device)
    x_BTI, _ = encoder.quantiser_inputs(wavs_BL, torch.tensor([encoder.sample_rate]))
    if layer == 0 and not x_BTI.requires_grad:
        return  # features without trained parameters, as in BEST-RQ
    folder = brain.checkpointer.checkpoints_dir
    if brain.checkpointer.recover_if_possible() is None:
        raise ValueError(
            f"layer {layer} has weights to be trained, and there is no checkpoint in {folder}; "
            f"train the recipe first, or set --output_folder to that of a run"
        )


def recipe_frames(brain: Any, loader: Any, layer: int) -> Frames:
    """The frames of a recipe's training audio; each pass over it has another order."""

    def batches(number: int) -> Iterator[tuple[Sequence[str], np.ndarray]]:
        loader.batch_sampler.set_epoch(number)
        for batch in loader:
            for clip, reason in batch.left_out:
                logger.warning(f"clip {clip!r} left out: {reason}")
            if not batch.is_empty:
                wavs_BL, lengths_B = brain.waveforms(batch)
                encoder = brain.raw("encoder").eval()
                yield batch.id, valid_frames(encoder, wavs_BL, lengths_B, layer)

    return Frames(batches, layer, "train_csv:", False if brain.noprogressbar else None)


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


@torch.no_grad()
def valid_frames(
    encoder: SpeechEncoder, wavs_BL: torch.Tensor, lengths_B: torch.Tensor, layer: int
) -> np.ndarray:
    """Frames of a batch without those of its padding, shape (frames, dim)."""
    if layer == 0:
        x_BTI, frames_B = encoder.quantiser_inputs(wavs_BL, lengths_B)
    else:
        if not 0 < layer <= len(encoder.layers):
            raise ValueError(
                f"there is no layer {layer}; --layer is 0 for the quantiser's inputs, or a layer "
                f"of the encoder, 1 to {len(encoder.layers)}"
            )
        (x_BTI,) = encoder.layer_outputs(wavs_BL, lengths_B, [layer])
        frames_B = encoder.count_frames(lengths_B)
    x_NI = torch.cat([x_TI[:frames] for x_TI, frames in zip(x_BTI, frames_B)])
    return x_NI.float().cpu().numpy()


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
