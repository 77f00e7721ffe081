"""Units of a layer of a trained encoder, as targets: the later iterations of HuBERT.

Shape suffixes: B batch, T encoder frames, D dim of the teacher.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from typing_extensions import override

from ..inference import load_pretrained
from ..inference.kmeans_files import fitted_layer
from ..models import SpeechEncoder
from ..models.frozen_layer import FrozenLayer
from ..quantisers import Clips, KMeansQuantizer
from .frames import check_path, check_rate, fit_frames
from .keeping import keep_teacher


class TeacherCodes(KMeansQuantizer):
    """Units of a layer of a trained encoder, the teacher, by k-means (https://arxiv.org/abs/2106.07447).

    The teacher is frozen and computes in float32, up to that layer. It is not in the
    ``state_dict``, which holds the centroids: they are fitted before the first step, or come from a
    file, as for ``KMeansQuantizer``. The teacher may be of another size than the encoder that is
    trained; its frames must be as many per second.

    Arguments
    ---------
    input_dim : int
        Size of the encoder's inputs, which every recipe gives. They are not read here: the
        attribute ``input_dim`` is the size of the teacher's hidden states.
    teacher : str
        What ``brainquant.load_pretrained`` opens: a run, an exported folder, a model of
        transformers.
    layer : int
        The layer of the teacher, counted from 1.
    centroids : str, torch.Tensor or None
        Of ``brainquant kmeans <teacher> --layer <layer>``; see ``KMeansQuantizer``. Either this or
    clusters : int or None
        Number of centroids that are fitted.
    seed : int
        Draws the first centroids of the fit.

    Raises
    ------
    ValueError
        If there is no such teacher or layer, if the centroids were fitted to another one, or as for
        ``KMeansQuantizer``.
    """

    reads_inputs = False
    files_needed = {**KMeansQuantizer.files_needed, "teacher": keep_teacher}

    def __init__(
        self,
        input_dim: int,
        teacher: str | os.PathLike[str],
        layer: int,
        *,
        centroids: Path | str | torch.Tensor | None = None,
        clusters: int | None = None,
        seed: int = 1234,
    ) -> None:
        with torch.random.fork_rng(devices=[]):  # a teacher does not change the encoder's weights
            try:
                model = load_pretrained(check_path(teacher=teacher))
            except ValueError as error:
                raise ValueError(f"teacher: {error}") from error
        if isinstance(centroids, (str, os.PathLike)) and os.path.exists(centroids):
            fitted_layer(centroids, layer, model.num_layers, model.fingerprint())
        super().__init__(model.dim, centroids, clusters=clusters, seed=seed)
        self.teacher = os.fspath(teacher)
        try:
            self.frozen = FrozenLayer(model.encoder, layer)
        except ValueError as error:
            raise ValueError(
                f"layer: {error}; set layer: under the quantiser in your YAML"
            ) from error

    @override
    def check_encoder(self, encoder: SpeechEncoder) -> None:
        """Raises a ValueError unless the teacher has as many frames per second as an encoder."""
        teacher, name = self.frozen.encoder, f"teacher: {self.teacher}"
        if teacher.sample_rate != encoder.sample_rate:
            raise ValueError(
                f"{name} reads audio of {teacher.sample_rate} Hz, but the encoder of this YAML "
                f"reads {encoder.sample_rate} Hz; set sample_rate: {teacher.sample_rate}, or take "
                f"another teacher"
            )
        rate = teacher.sample_rate / teacher.stride
        remedy = "set stack: and the strides of front_end: to that, or take another teacher"
        check_rate(encoder, rate, name, remedy)

    @override
    def read(self, clips: Clips) -> torch.Tensor:
        """Hidden states of the teacher, NaN after the end of each clip; see ``Quantiser.read``."""
        hidden_BTD = self.frozen(clips.wavs_BL, clips.lengths_B)
        frames_B = self.frozen.encoder.count_frames(clips.lengths_B)
        return fit_frames(hidden_BTD, frames_B, clips.inputs_BTI.shape[1], torch.nan)
