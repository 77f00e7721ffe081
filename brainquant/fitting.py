"""Fits the centroids of a quantiser to the training audio of a recipe.

The frames are streamed: memory holds the model, a batch and one block of frames, whatever the
size of the corpus.

Shape suffixes: B batch, L samples, T frames of an utterance, N frames of all, I input dim.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from .data.silence import check_sound
from .functional.imports import import_late
from .monitoring.counts import CodeMonitor, code_statistics

logger = get_logger(__name__)

FRAMES_PER_CLUSTER = 10  # of a block


def fit_kmeans(
    brain: Any, loader: Any, *, layer: int, clusters: int, num_frames: int
) -> tuple[dict[str, torch.Tensor], str]:
    """Centroids of the frames of a layer, for ``KMeansQuantizer``.

    Mini-batch k-means from scikit-learn: k-means++ on the first block, then a step for each
    block. HuBERT fits its targets so (https://arxiv.org/abs/2106.07447).

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
    if not 0 < clusters <= num_frames:
        raise ValueError(
            f"--clusters must be at least 1 and at most --frames, got --clusters {clusters}, "
            f"--frames {num_frames}; 1000 frames for each cluster are enough"
        )
    check_sound(loader.dataset, torch.Generator().manual_seed(brain.hparams.seed))
    block = FRAMES_PER_CLUSTER * clusters
    MiniBatchKMeans = import_late("sklearn.cluster").MiniBatchKMeans
    # As in HuBERT, the centroid of a rare cluster stays where it is.
    kmeans = MiniBatchKMeans(
        clusters, batch_size=block, reassignment_ratio=0.0, random_state=brain.hparams.seed
    )
    seen, inertia, monitor = 0, 0.0, CodeMonitor(1, clusters)
    frames = stream_frames(brain, loader, layer, num_frames, at_least=clusters)
    for x_NI in in_blocks(frames, block):
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


def stream_frames(
    brain: Any, loader: Any, layer: int, num_frames: int, *, at_least: int
) -> Iterator[np.ndarray]:
    """Valid frames of a layer, a batch at a time, as float32 arrays (frames, dim).

    Arguments
    ---------
    brain : PretrainBrain
        Gives the frames.
    loader : torch.utils.data.DataLoader
        Of the training audio; each pass over it has another order.
    layer : int
        0 for the quantiser's inputs, k for the outputs of encoder layer k.
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
    hidden = brain.noprogressbar or None  # None: tqdm shows a bar on a terminal only
    with tqdm(total=num_frames, unit="frame", unit_scale=True, disable=hidden) as progress:
        for epoch in itertools.count(1):
            loader.batch_sampler.set_epoch(epoch)
            for batch in loader:
                for clip, reason in batch.left_out:
                    logger.warning(f"clip {clip!r} left out: {reason}")
                if batch.is_empty:
                    continue
                x_NI = valid_frames(brain, batch, layer)[: num_frames - seen]
                if not np.isfinite(x_NI).all():
                    raise ValueError(
                        f"layer {layer} is not finite for one of {', '.join(batch.id)}; take the "
                        f"broken audio out of train_csv:"
                    )
                yield x_NI
                seen += len(x_NI)
                progress.update(len(x_NI))
                if seen == num_frames:
                    return
            if seen < at_least:
                raise ValueError(
                    f"the training audio has {seen} frames, too few for {at_least} "
                    f"clusters; ask for fewer, or set train_csv: to more audio"
                )


@torch.no_grad()
def valid_frames(brain: Any, batch: Any, layer: int) -> np.ndarray:
    """Frames of a batch without those of its padding, shape (frames, dim)."""
    encoder = brain.raw("encoder").eval()
    wavs_BL, lengths_B = brain.waveforms(batch)
    if layer == 0:
        x_BTI, frames_B = encoder.quantiser_inputs(wavs_BL, lengths_B)
    else:
        if not 0 < layer <= len(encoder.layers):
            raise ValueError(
                f"there is no layer {layer}; --layer is 0 for the quantiser's inputs, or a layer "
                f"of the encoder, 1 to {len(encoder.layers)}"
            )
        x_BTI = encoder.layer_outputs(wavs_BL, lengths_B)[layer - 1]
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
