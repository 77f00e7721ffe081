"""What a run does besides its steps: validations, measurements of its layers, checkpoints."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from speechbrain import Stage

from ..training.checkpoint_folder import size
from ..training.checkpoints import Checkpointer
from ..training.quality import Quality
from .length import Length, clip_seconds

MEASURED_MINUTES = 0.2  # of the speech on which the layers are measured
FORWARD_SHARE = 1 / 3  # of the seconds of a training step


def measure_validation(brain: Any, valid_loader: Any, *, seconds: float) -> float:
    """Seconds of a validation, from a share of its batches.

    Arguments
    ---------
    brain : RunBrain
        Its modules are in evaluation mode afterwards.
    valid_loader : torch.utils.data.DataLoader
        Of ``make_loaders``.
    seconds : float
        Time for it; one batch, after one that warms up, is measured in any case.
    """
    lengths = clip_seconds(valid_loader)
    batches = list(valid_loader.batch_sampler)
    padded = [len(batch) * max(lengths[clip] for clip in batch) for batch in batches]
    # Short batches come first in a validation: here they are spread over all lengths.
    order = sorted(range(len(batches)), key=lambda number: (number * 0.6180339887) % 1)
    brain.modules.eval()
    brain.tally.start(Stage.VALID)
    end = time.monotonic() + seconds
    taken = measured = 0.0
    for turn, number in enumerate([order[0], *order]):
        began = time.perf_counter()
        batch = valid_loader.collate_fn([valid_loader.dataset[clip] for clip in batches[number]])
        brain.step = number + 1
        brain.evaluate_batch(batch, Stage.VALID)
        wait_for(brain.device)
        if turn:
            taken += time.perf_counter() - began
            measured += padded[number]
        if turn and time.monotonic() > end:
            break
    return taken * sum(padded) / measured


def measure_quality(brain: Any, train_loader: Any, valid_loader: Any) -> float:
    """Seconds of a measurement of the layers; 0 if the run makes none."""
    quality = getattr(brain, "quality", None)
    if quality is None:
        return 0.0
    encoder = brain.raw("encoder")
    quality.prepare(encoder, train_loader, valid_loader, brain.grad_accumulation_factor)
    if not quality.is_wanted:
        return 0.0
    minutes = min(MEASURED_MINUTES, quality.seconds / 60)
    trial = Quality(minutes, seed=quality.seed)
    began = time.perf_counter()
    trial.measure(encoder, valid_loader.dataset, 0)
    wait_for(brain.device)
    return (time.perf_counter() - began) * quality.seconds / 60 / minutes


def num_quality(length: Length, interval: float) -> int:
    """How often a run measures its layers: before its first step, at intervals and at its end.

    Example
    -------
    >>> num_quality(Length(95, "optimizer_step_limit", 10, 10, 1.0, 1.0), interval=25)
    5
    """
    if math.isinf(interval):
        return 0
    epochs = math.ceil(interval / length.steps_of_epoch)
    return 1 + math.ceil(length.steps / (epochs * length.steps_of_epoch))


def measure_checkpoint(brain: Any, folder: Path) -> tuple[float, int]:
    """Seconds and bytes of a checkpoint: parameters are written, and the rest added.

    Arguments
    ---------
    brain : RunBrain
        Its modules are written.
    folder : pathlib.Path
        A new folder, which is removed again.
    """
    modules = dict(brain.modules.items())
    began = time.perf_counter()
    Checkpointer(folder, modules).save_checkpoint(verbosity=0)
    taken, written = time.perf_counter() - began, size(folder)
    shutil.rmtree(folder)
    trained = [p for p in brain.modules.parameters() if p.requires_grad]
    numbers = sum(p.numel() for p in trained)
    total = written + numbers * state_bytes(brain.opt_class)
    return taken * total / written, round(total)


def state_bytes(make_optimizer: Any) -> float:
    """Bytes of an optimiser's state for each trained number.

    Example
    -------
    >>> round(state_bytes(torch.optim.Adam)), round(state_bytes(lambda p: torch.optim.SGD(p, 0.1)))
    (8, 0)
    """
    weight = torch.nn.Parameter(torch.zeros(64, 64))
    weight.grad = torch.zeros_like(weight)
    optimizer = make_optimizer([weight])
    optimizer.step()
    tensors = [v for v in optimizer.state[weight].values() if isinstance(v, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / weight.numel()


def wait_for(device: str | torch.device) -> None:
    """Waits until the device has done its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
