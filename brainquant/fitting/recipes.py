"""Fits the centroids of a quantiser to the training audio of a recipe.

Shape suffixes: B batch, L samples, T frames of an utterance, I input dim.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from speechbrain.utils.logger import get_logger

from ..data.silence import check_sound
from .centroids import check_sizes, fit_centroids
from .frames import Frames, valid_frames

logger = get_logger(__name__)


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


def load_weights(brain: Any, layer: int) -> bool:
    """Loads the last checkpoint of the run, if the frames of a layer depend on parameters.

    Returns
    -------
    loaded : bool
        Whether they do.

    Raises
    ------
    ValueError
        If there is no checkpoint, or it is one of another model.
    """
    encoder = brain.raw("encoder").eval()
    wavs_BL = torch.zeros(1, encoder.sample_rate, device=brain.device)
    x_BTI, _ = encoder.quantiser_inputs(wavs_BL, torch.tensor([encoder.sample_rate]))
    if layer == 0 and not x_BTI.requires_grad:
        return False  # features without trained parameters, as in BEST-RQ
    folder = brain.checkpointer.checkpoints_dir
    if brain.checkpointer.recover_if_possible() is None:
        raise ValueError(
            f"layer {layer} has weights to be trained, and there is no checkpoint in {folder}; "
            f"train the recipe first, or set --output_folder to that of a run"
        )
    return True


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


def recipe_fingerprint(brain: Any) -> str | None:
    """The fingerprint of the run that ``load_weights`` has loaded; None if it has no YAML."""
    from ..inference.loading import HPARAMS, encoder_of

    path = os.path.join(brain.hparams.output_folder, HPARAMS)
    return encoder_of(brain, path).fingerprint() if os.path.isfile(path) else None
