"""Measures the layers of a run's encoder without labels, at its validations.

Shape suffixes: L samples, T frames, D dim.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from speechbrain.utils.logger import get_logger
from torchaudio.functional import resample

from ..data.workers import LeftOutClip
from ..models.speech_encoder import SpeechEncoder, copy_that_normalises
from ..monitoring.quality import LAYER_NUMBERS, START, LayerQuality, layer_quality, same_times
from ..ranks import on_main_process, rank
from .randomness import derived_generator

logger = get_logger(__name__)

SPEED = 9, 10  # of the other version: nine tenths
CLIP_SECONDS = 10.0  # of a clip that is longer; so there are several speakers
MIN_SECONDS = 1.0
NOT_MEASURED = "valid_csv has too little speech, or the outputs of the encoder are not finite"
# Seconds of training speech for each second that is measured. Measuring then takes at most 2 % of
# a training: tests/benchmarks/quality.py. A GPU trains so much faster than the host can count.
SPARSE = {"cpu": 110, "cuda": 2000}


def check_what_keeps_the_best(hparams: Any) -> None:
    """Raises a ValueError if nothing measures what the best checkpoints are kept by.

    Arguments
    ---------
    hparams : Any
        Has ``keep_best_by``, ``quality_minutes`` and ``valid_csv``.
    """
    if hparams.keep_best_by == "loss":
        return
    for key, is_missing, remedy in (
        ("quality_minutes", not hparams.quality_minutes, "1.0"),
        ("valid_csv", hparams.valid_csv is None, "a manifest"),
    ):
        if is_missing:
            value = "null" if (given := getattr(hparams, key)) is None else given
            raise ValueError(
                f"keep_best_by is {hparams.keep_best_by}, which are measured on quality_minutes: "
                f"of valid_csv:, but {key} is {value}: set {key}: to {remedy}, or "
                f"keep_best_by: loss"
            )


class Quality:
    """The label-free quality of a run, measured on the same clips each time.

    A measurement is due at a validation after enough training speech, so it depends on no clock,
    and at the last one. Every rank encodes the clips, and the main process measures.

    Arguments
    ---------
    minutes : float
        Validation speech to measure on; 0 for none.
    seed : int
        Draws the clips.

    Attributes
    ----------
    interval : float
        Optimiser steps from one measurement to the next; infinite if there are none.
    start : dict
        The numbers of the encoder before the first step; empty before they are measured.

    Example
    -------
    >>> quality = Quality(0.5, seed=1)
    >>> quality.interval = 10
    >>> [quality.is_due(step) for step in (0, 9, 10)]
    [False, False, True]
    >>> quality.is_due(9, is_last=True)
    True
    """

    without_state: dict = {}  # checkpoints of earlier versions lack this part

    def __init__(self, minutes: float, *, seed: int) -> None:
        self.seconds = 60 * minutes
        self.seed = seed
        self.interval = math.inf
        self.start: dict[str, Any] = {}
        self.last_step = 0
        self.clips: list[tuple[torch.Tensor, torch.Tensor]] | None = None  # both versions

    def prepare(
        self, encoder: SpeechEncoder, train_set: Any, valid_set: Any, batches_per_step: int
    ) -> None:
        """Sets the interval.

        Arguments
        ---------
        encoder : SpeechEncoder
            The encoder, on its device.
        train_set, valid_set : torch.utils.data.DataLoader
            Of ``make_loaders``.
        batches_per_step : int
            Batches of an optimiser step, over ranks and accumulation.
        """
        try:
            _ = encoder.layers
        except ValueError as error:
            logger.info(f"The label-free quality is not measured: {error}")
            return
        if not self.seconds:
            return
        of_step = sum(seconds_of(train_set)) * batches_per_step / train_set.batch_sampler.total
        measured = min(self.seconds, sum(min(s, CLIP_SECONDS) for s in seconds_of(valid_set)))
        sparse = SPARSE["cpu" if device_of(encoder).type == "cpu" else "cuda"]
        self.interval = math.ceil(sparse * measured / of_step)

    @property
    def is_wanted(self) -> bool:
        """Whether anything is measured."""
        return self.interval < math.inf

    def is_due(self, step: int, *, is_last: bool = False) -> bool:
        """Whether to measure at a validation after so many steps."""
        since = step - self.last_step
        return self.is_wanted and (since >= self.interval or (is_last and since > 0))

    def measure(
        self,
        encoder: SpeechEncoder,
        dataset: Any,
        step: int,
        tick: Callable[[str], None] = lambda phase: None,
    ) -> dict[str, Any]:
        """The numbers of a log point, the same on every rank; each rank has to call this.

        Neither the encoder nor a generator changes.

        Arguments
        ---------
        encoder : SpeechEncoder
            The encoder, on its device.
        dataset : Sequence
            The validation clips, of which the first call reads some.
        step : int
            Optimiser steps so far.
        tick : callable
            Is called with the name of the phase.

        Returns
        -------
        numbers : dict
            For each name of ``LAYER_NUMBERS`` a value for each layer, None where it is not finite,
            and their mean, as ``mean_<name>``. Empty if there is too little speech.
        """
        self.last_step = step
        device = device_of(encoder)
        versions: list[list[list[torch.Tensor]]] = []  # by clip, by layer: both versions
        with as_in_validation(encoder):
            for clip, other in self.read_clips(dataset, encoder):
                tick("measuring the quality")
                layers = encode(encoder, clip.to(device)), encode(encoder, other.to(device))
                if rank() == 0:
                    versions.append(pair_layers(encoder, *layers))
        return on_main_process(lambda: numbers_of(versions, device))

    @torch.no_grad()
    def measure_start(
        self, encoder: SpeechEncoder, dataset: Any, tick: Callable[[str], None]
    ) -> None:
        """Measures the encoder before the first step, and keeps that; see ``measure``.

        Its normalisation has no statistics yet: a copy takes those of the clips that are measured.
        """
        encoder, device = copy_that_normalises(encoder), device_of(encoder)
        for clip, _ in self.read_clips(dataset, encoder):
            tick("measuring the quality")
            encoder.quantiser_inputs(clip[None].to(device), torch.tensor([len(clip)]))
        self.keep_start(self.measure(encoder, dataset, 0, tick))

    def read_clips(
        self, dataset: Any, encoder: SpeechEncoder
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Waveforms, drawn from the dataset, and the same at the other speed; read once."""
        if self.clips is not None:
            return self.clips
        rate, clips, missing = encoder.sample_rate, [], self.seconds
        generator = derived_generator("cpu", self.seed, "quality")
        for index in torch.randperm(len(dataset), generator=generator).tolist():
            if missing < min(MIN_SECONDS, self.seconds):
                break
            clip = dataset[index]
            if isinstance(clip, LeftOutClip):
                continue
            wav_L = clip["sig"][: round(rate * min(missing, CLIP_SECONDS))]
            if len(wav_L) >= encoder.min_samples:
                clips.append((wav_L, resample(wav_L, *SPEED)))
                missing -= len(wav_L) / rate
        self.clips = clips
        return clips

    def keep_start(self, numbers: Mapping[str, Any]) -> None:
        """Takes the numbers of the encoder before the first step."""
        # Means, too: TensorBoard takes no lists.
        names = [*LAYER_NUMBERS, *(f"mean_{name}" for name in LAYER_NUMBERS)]
        self.start = {f"{START}{name}": numbers[name] for name in names if numbers}
        if not numbers:
            logger.info(f"The label-free quality is not measured: {NOT_MEASURED}")

    def state_dict(self) -> dict:
        """The numbers of the start and the step of the last measurement, for a checkpoint."""
        return {"start": self.start, "last_step": self.last_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what ``state_dict`` gives."""
        self.start = dict(state.get("start", {}))
        self.last_step = state.get("last_step", 0)


@contextlib.contextmanager
def as_in_validation(encoder: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, without gradients; modes and global generators are as before at the end."""
    modes = {module: module.training for module in encoder.modules()}
    device = device_of(encoder)
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            yield encoder.eval() and None
    finally:
        for module, mode in modes.items():
            module.training = mode


def seconds_of(loader: Any) -> list[float]:
    """The lengths of the clips of a loader."""
    return [float(clip["duration"]) for clip in loader.dataset.data.values()]


def device_of(encoder: torch.nn.Module) -> torch.device:
    """Where the parameters of an encoder are."""
    return next(encoder.parameters()).device


def encode(encoder: SpeechEncoder, wav_L: torch.Tensor) -> list[torch.Tensor]:
    """Outputs of all layers for one waveform, shape (frames, dim) each."""
    layers = encoder.layer_outputs(wav_L[None], torch.tensor([len(wav_L)]))
    return [layer[0].float() for layer in layers]


def pair_layers(
    encoder: SpeechEncoder, layers: Sequence[torch.Tensor], others: Sequence[torch.Tensor]
) -> list[list[torch.Tensor]]:
    """For each layer the frames of both versions of a clip that are at the same moments."""
    times, others_times = (encoder.frame_times(len(x[0])) for x in (layers, others))
    frames, partners = same_times(times, others_times * SPEED[0] / SPEED[1])
    # On the host: the outputs of all layers may not fit beside the training.
    return [[x[frames].cpu(), y[partners].cpu()] for x, y in zip(layers, others)]


def numbers_of(
    versions: Sequence[Sequence[Sequence[torch.Tensor]]], device: torch.device
) -> dict[str, Any]:
    """What ``Quality.measure`` gives, from the paired frames of each clip by layer."""
    if device.type == "mps":
        device = torch.device("cpu")  # MPS has no float64
    found: list[LayerQuality | None] = []
    for layer in zip(*versions):
        clips, others = ([x.to(device) for x in version] for version in zip(*layer))
        found.append(layer_quality(clips, others))
    known = [quality for quality in found if quality is not None]
    numbers: dict[str, Any] = {}
    for name in LAYER_NUMBERS if known else ():
        numbers[name] = [quality and getattr(quality, name) for quality in found]
        numbers[f"mean_{name}"] = sum(getattr(quality, name) for quality in known) / len(known)
    return numbers
