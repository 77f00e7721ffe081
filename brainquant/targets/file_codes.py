"""Labels from files, as targets.

Shape suffixes: B batch, T encoder frames, G codebooks, N clips.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np
import torch
from typing_extensions import override

from ..errors import RunError
from ..functional.transfer import to_device
from ..models import SpeechEncoder
from ..quantisers import Clips, Quantiser
from ..quantisers.base import check_positive
from .frames import check_path, check_rate
from .label_source import find_labels, keep_labels
from .labels import Labels

# At the same rate, the frames of two encoders differ at the end of a clip by up to 2: some count
# a frame for the last, partial stack, others none whose window reaches beyond the end.
MOST_FRAMES_APART = 2
EXAMPLES = 3


class FileCodes(Quantiser):
    """Labels of frames from files, by the ID of the clip: what ``brainquant tokens`` writes.

    Before the first step, all clips of training and validation are looked up, and their labels are
    counted. A frame at the end of a clip that has no label is no target.

    Arguments
    ---------
    input_dim : int
        Size of the encoder's inputs, which every recipe gives. They are not read here.
    labels : str
        An ``.npz`` or ``.jsonl`` file, or a folder with such files, one for each split.
    codebook_size : int or None
        Labels are from 0 to one less than this. None: what the ``.json`` beside the file says.
    frame_rate : float or None
        Labels per second. None: what the ``.json`` beside the file says.

    Raises
    ------
    ValueError
        If there are no labels, or if their number or rate is not known.

    Example
    -------
    >>> path = str(getfixture("tmp_path") / "units.npz")
    >>> np.savez(path, a=np.array([7, 3]), b=np.array([1]))
    >>> codes = FileCodes(320, path, codebook_size=8, frame_rate=25.0)
    >>> wavs, inputs = torch.zeros(2, 1280), torch.zeros(2, 3, 320)
    >>> clips = Clips(["b", "a"], wavs, torch.tensor([640, 1280]), inputs)
    >>> codes.encode_clips(clips)[..., 0]
    tensor([[ 1, -1, -1],
            [ 7,  3, -1]])
    """

    reads_inputs = False
    files_needed = {"labels": keep_labels}  # see training/needed_files.py

    def __init__(
        self,
        input_dim: int,
        labels: str,
        *,
        codebook_size: int | None = None,
        frame_rate: float | None = None,
    ) -> None:
        super().__init__()
        [self.input_dim] = check_positive(input_dim=input_dim)
        self.source = find_labels(check_path(labels=labels))
        self.frame_rate = self._known("frame_rate", frame_rate)
        if not isinstance(self.frame_rate, Real) or isinstance(self.frame_rate, bool):
            raise ValueError(
                f"frame_rate must be a number, got {self.frame_rate!r}; set frame_rate: under the "
                f"quantiser in your YAML, as in 25.0"
            )
        [self.codebook_size] = check_positive(
            codebook_size=self._known("codebook_size", codebook_size)
        )
        self._opened: Labels | None = None
        self.num_codebooks = self.source.num_codebooks
        # SpeechBrain warns at each checkpoint of a module that has nothing to save.
        self.register_buffer("sizes", torch.tensor([self.num_codebooks, self.codebook_size]))

    def _known(self, key: str, given: Any) -> Any:
        """A size that the YAML or the file says; a ValueError if none does, or both differ."""
        said, path = getattr(self.source, key), self.source.path
        if given is None and said is None:
            raise ValueError(
                f"labels: nothing beside {path} says its {key}; set {key}: under the quantiser in "
                f"your YAML"
            )
        if None not in (given, said) and given != said:
            raise ValueError(
                f"{key} is {given}, but {path} has {said}; leave {key}: out under the quantiser in "
                f"your YAML"
            )
        return said if given is None else given

    @property
    def labels(self) -> Labels:
        """The labels, opened at their first use: a trained run can be opened without them."""
        if self._opened is None:
            for path in self.source.paths:
                if not os.path.exists(path):
                    raise ValueError(
                        f"labels: {path} is gone; bring it back, or make it again with brainquant "
                        f"tokens"
                    )
            self._opened = Labels(self.source.paths)
        return self._opened

    @override
    def check_encoder(self, encoder: SpeechEncoder) -> None:
        """Raises a ValueError unless there are as many labels per second as frames."""
        remedy = (
            "make labels with a model of this rate, or set stack: and the strides of front_end: to "
            "theirs"
        )
        check_rate(encoder, self.frame_rate, f"labels: {self.source.path}", remedy)

    @override
    def check_clips(self, encoder: SpeechEncoder, clips: Iterable[tuple[str, float]]) -> None:
        """Raises a ValueError if clips have no labels, or too few or too many."""
        ids, seconds = zip(*clips)
        path, found = self.source.path, self.labels.find(ids)
        missing = np.flatnonzero(found.rows_N < 0)
        if len(missing):
            some = ", ".join(repr(ids[n]) for n in missing[:EXAMPLES])
            raise ValueError(
                f"labels: {path} has no labels for {len(missing)} of {len(ids)} clips of train_csv "
                f"and valid_csv, such as {some}; make them with brainquant tokens, of these "
                f"manifests"
            )
        samples_N = torch.tensor(seconds, dtype=torch.float64).mul(encoder.sample_rate).round()
        frames_N = encoder.count_frames(samples_N.long()).numpy()
        wrong = np.flatnonzero(np.abs(frames_N - found.frames_N) > MOST_FRAMES_APART)
        if len(wrong):
            some = ", ".join(
                f"{ids[n]!r} ({found.frames_N[n]} labels, {frames_N[n]} frames)"
                for n in wrong[:EXAMPLES]
            )
            raise ValueError(
                f"labels: in {path}, {len(wrong)} of {len(ids)} clips have too few or too many "
                f"labels for {self.frame_rate:g} frames per second, such as {some}; make them of "
                f"the same audio, with a model of this rate"
            )

    @override
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Raises a ValueError: labels belong to clips, not to frames."""
        raise ValueError(
            f"labels: {self.source.path} has labels of clips by their IDs, and none for frames "
            f"alone; fit a k-means to a layer with brainquant kmeans"
        )

    @override
    def encode_clips(self, clips: Clips) -> torch.Tensor:
        """Labels of the clips, -1 for a frame without one; see ``Quantiser.encode_clips``."""
        num_clips, num_frames, _ = clips.inputs_BTI.shape
        codes_BTG = torch.full((num_clips, num_frames, self.num_codebooks), -1)
        for codes_TG, clip_id, row in zip(codes_BTG, clips.ids, self.labels.find(clips.ids).rows_N):
            if row >= 0:
                labels_TG = self._read(clip_id, row)[:num_frames]
                codes_TG[: len(labels_TG)] = torch.from_numpy(labels_TG)
        return to_device(codes_BTG, clips.inputs_BTI.device)

    def _read(self, clip_id: str, row: int) -> np.ndarray:
        """The labels of a clip; a RunError if they are damaged or out of range."""
        try:
            labels_TG = self.labels.read(row)
            if labels_TG.shape[1] != self.num_codebooks:
                raise ValueError(f"of {labels_TG.shape[1]} codebooks, not {self.num_codebooks}")
            if labels_TG.size and not 0 <= labels_TG.min() <= labels_TG.max() < self.codebook_size:
                raise ValueError(
                    f"from {labels_TG.min()} to {labels_TG.max()}, and codebook_size is "
                    f"{self.codebook_size}"
                )
        except (OSError, ValueError) as error:
            raise RunError(
                f"labels: those of the clip {clip_id!r} in {self.source.path} cannot be used: "
                f"{error}"
            ) from error
        return labels_TG
