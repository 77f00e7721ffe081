"""Fits centroids to frames.

Memory holds the model, a batch and one block of frames, whatever the size of the corpus.

Shape suffixes: N frames, I input dim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..functional.imports import import_late
from ..monitoring.counts import CodeMonitor, code_statistics
from .frames import Frames, in_blocks, stream_frames

if TYPE_CHECKING:
    from sklearn.cluster import MiniBatchKMeans


def fit_centroids(
    frames: Frames, *, clusters: int, num_frames: int, seed: int
) -> tuple[dict[str, torch.Tensor], str]:
    """Centroids of frames: as ``fit_kmeans``, for any audio.

    Mini-batch k-means from scikit-learn: k-means++ on the first block, then a step for each
    block. HuBERT fits its targets so (https://arxiv.org/abs/2106.07447).

    Example
    -------
    >>> import numpy as np
    >>> def batches(number):
    ...     yield ["a", "b"], np.array([[0.0], [8.0], [0.2], [8.2]], np.float32)
    >>> frames = Frames(batches, layer=1, source="two clips")
    >>> tensors, _ = fit_centroids(frames, clusters=2, num_frames=400, seed=0)
    >>> sorted(round(x, 1) for x in tensors["centroids"].flatten().tolist())
    [0.1, 8.1]
    """
    check_sizes(clusters, num_frames)
    kmeans = mini_batch_kmeans(clusters, seed)
    seen, inertia, monitor = 0, 0.0, CodeMonitor(1, clusters)
    for x_NI in in_blocks(stream_frames(frames, num_frames, at_least=clusters), kmeans.batch_size):
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


def mini_batch_kmeans(clusters: int, seed: int) -> MiniBatchKMeans:
    """Mini-batch k-means of scikit-learn, which begins with k-means++.

    As in HuBERT, the centroid of a rare cluster stays where it is. A batch has ten frames for each
    cluster.
    """
    return import_late("sklearn.cluster").MiniBatchKMeans(
        clusters, batch_size=10 * clusters, reassignment_ratio=0.0, random_state=seed
    )
