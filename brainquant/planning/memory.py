"""The memory of a run: what its largest batch needs, and the largest batch that fits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .capacity import Capacity, in_gib
from .largest_batch import BatchShape, batch_shapes
from .memory_model import MemoryModel, fit_memory
from .section import Finding, Section
from .trial_steps import Trial

FAR = 1 / 10  # of the largest batch: smaller ones say little about it
MARGIN = 0.1  # of the memory that is free, for what the prediction is wrong by
BYTES_OF_GRADIENT = 4  # parameters and their gradients are float32 in every precision
# batch_seconds that are tried: round numbers, each at most 1.33 times the one before.
ROUND = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)


def plan_memory(hparams: Mapping[str, Any], train_loader: Any, trial: Trial) -> Section:
    """What the largest batch of a run needs, beside what the machine has.

    The memory of loader workers, which are processes of their own, and of several ranks is not
    in it.

    Arguments
    ---------
    hparams : dict
        The keys that make the batches, ``num_workers`` and ``activation_checkpointing``.
    train_loader : torch.utils.data.DataLoader
        Of ``make_loaders``.
    trial : Trial
        Of the same recipe.
    """
    clips = train_loader.dataset.dataset
    model = fit_memory(trial)
    largest = largest_batch(clips, hparams, model)
    needed = max(model.predict(largest), trial.before_steps_bytes)
    capacity = trial.capacity
    facts: dict[str, Any] = {
        "device": trial.device,
        "floor_bytes": trial.floor_bytes,
        "before_steps_bytes": trial.before_steps_bytes,
        "tried": [
            {"padded_seconds": step.padded_seconds / step.batches, "peak_bytes": step.peak_bytes}
            for step in trial.steps
        ],
        "largest_batch": {**largest._asdict(), "padded_seconds": largest.padded_seconds},
        "predicted_bytes": needed,
        "total_bytes": capacity and capacity.total,
        "available_bytes": capacity and capacity.available,
        "margin": MARGIN,
    }
    tried = trial.steps[-1].padded_seconds / trial.steps[-1].batches
    lines = [
        f"Largest batch: {describe(largest)}",
        f"It needs {in_gib(needed)} (predicted from batches of up to {tried:.0f} s);",
        f"of this, the program, {trial.parameters / 1e6:.1f} million parameters and the optimiser "
        f"are {in_gib(trial.floor_bytes)}",
    ]
    if tried < FAR * largest.padded_seconds:
        lines.append("  (these are so small that it may need more; --minutes 10 tries larger ones)")
    findings: list[Finding] = []
    if capacity is not None:
        room = (1 - MARGIN) * capacity.available
        fits = largest_that_fits(clips, hparams, model, room)
        facts |= {"fits": needed <= room, "largest_batch_seconds": fits}
        lines.append(
            f"Free: {in_gib(capacity.available)} of {in_gib(capacity.total)} ({name_of(capacity)})"
        )
        is_all = fits is not None and fits == round_values(clips, key_of_size(hparams))[-1]
        lines.append(line_about(fits, hparams, is_all=is_all))
        if needed > room:
            findings.append(too_large(hparams, train_loader, trial, model, needed, room))
    if workers := hparams.get("num_workers", 0):
        lines.append(f"The {workers} loader workers are processes of their own, not counted here.")
    return Section("Memory", facts, lines, findings)


def largest_batch(clips: Any, hparams: Mapping[str, Any], model: MemoryModel) -> BatchShape:
    """The batch that needs the most memory, of those that the sampler makes."""
    return max(batch_shapes(clips, hparams), key=model.load)


def largest_that_fits(
    clips: Any, hparams: Mapping[str, Any], model: MemoryModel, room: float
) -> float | None:
    """The largest round ``batch_seconds`` whose batches fit; None if none does.

    Arguments
    ---------
    clips : speechbrain.dataio.dataset.DynamicItemDataset
        The training clips.
    hparams : dict
        The other keys that make the batches. With ``batch_clips`` the result is that key.
    model : MemoryModel
        What a batch needs.
    room : float
        Bytes that it may need.
    """
    key = key_of_size(hparams)

    def fits(value: float) -> bool:
        changed = {**hparams, key: value if key == "batch_seconds" else int(value)}
        return model.predict(largest_batch(clips, changed, model)) <= room

    tried = round_values(clips, key)
    low, high = -1, len(tried)  # fits, does not fit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(tried[middle]) else (low, middle)
    return tried[low] if low >= 0 else None


def key_of_size(hparams: Mapping[str, Any]) -> str:
    """The key that sets the size of the batches."""
    return "batch_seconds" if hparams["batch_clips"] is None else "batch_clips"


def round_values(clips: Any, key: str) -> list[float]:
    """The values of ``batch_seconds`` or ``batch_clips`` to try: up to the whole corpus."""
    lengths = [float(clip["duration"]) for clip in clips.data.values()]
    most = max(sum(lengths) if key == "batch_seconds" else len(lengths), 1)
    tens = [10.0**power for power in range(math.ceil(math.log10(most)) + 1)]
    values = [ten * step for ten in tens for step in ROUND]
    return sorted({float(int(v)) if key == "batch_clips" else v for v in values if v <= most})


def too_large(
    hparams: Mapping[str, Any],
    train_loader: Any,
    trial: Trial,
    model: MemoryModel,
    needed: int,
    room: float,
) -> Finding:
    """A batch that does not fit, with the keys that keep the seconds of speech in a step."""
    clips, accumulated = train_loader.dataset.dataset, trial.accumulation
    key = key_of_size(hparams)
    if accumulated == 1:  # gradients stay from one batch to the next
        model = model._replace(
            start=model.start + BYTES_OF_GRADIENT * trial.parameters,
            least=model.least + BYTES_OF_GRADIENT * trial.parameters,
        )
    smaller = largest_that_fits(clips, hparams, model, room)
    text = (
        f"the largest batch, {describe(largest_batch(clips, hparams, model))}, needs "
        f"{in_gib(needed)}; the run may have {in_gib(room)}, a margin of {MARGIN:.0%} left out"
    )
    others = (
        "" if hparams.get("activation_checkpointing") else ", or activation_checkpointing: True"
    )
    if smaller is None or smaller >= hparams[key]:
        remedy = "take a smaller model (num_layers:, d_model:), or a lower max_seconds:"
    else:
        wanted = hparams[key]
        # Too few buckets keep all batches far below batch_seconds.
        padded = largest_batch(clips, hparams, model).padded_seconds
        if key == "batch_seconds" and padded < wanted / 2:
            wanted = padded
        batches = math.ceil(wanted * accumulated / smaller)
        value = wanted * accumulated / batches
        value = int(value) if key == "batch_clips" else float(f"{value:.3g}")
        remedy = (
            f"set {key}: {value:g} and grad_accumulation_factor: {batches}, with as many seconds "
            f"of speech in a step as before"
        )
    return Finding("batch_larger_than_memory", text, f"{remedy}{others}")


def line_about(fits: float | None, hparams: Mapping[str, Any], *, is_all: bool) -> str:
    """The largest batch that fits, for a reader; ``is_all``: it has all the speech there is."""
    key = key_of_size(hparams)
    if is_all:
        return f"Any {key} fits, up to all the speech there is (now {hparams[key]:g})"
    if fits is None:
        return f"No {key} fits, with a margin of {MARGIN:.0%}"
    return (
        f"Largest {key} that fits, with a margin of {MARGIN:.0%}: {fits:g} (now {hparams[key]:g})"
    )


def describe(batch: BatchShape) -> str:
    """A batch in words.

    Example
    -------
    >>> describe(BatchShape(12, 15.5))
    '12 clips of up to 15.5 s, 186 s with padding'
    """
    clips = "1 clip" if batch.clips == 1 else f"{batch.clips} clips"
    return (
        f"{clips} of up to {batch.longest_seconds:.1f} s, {batch.padded_seconds:.0f} s with padding"
    )


def name_of(capacity: Capacity) -> str:
    """What has the memory, short enough for a line."""
    return capacity.name if len(capacity.name) <= 30 else f"{capacity.name[:27]}..."
