"""One optimiser step of a run: its speech, its parameters, its arithmetic and its masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..brains.pretrain import PretrainBrain
from ..ranks import world_size
from .corpus.padding import fuller_batches
from .flop import count_flop
from .masks import find_in_masks, lines_of_masks, masked_shares
from .section import Finding, Section

HALF_FULL = 0.5  # of the speech that a step may have


def describe_step(brain: Any, hparams: Mapping[str, Any], train_loader: Any) -> Section:
    """What one step of a run takes in and computes, and what it masks.

    Makes a forward and a backward pass of a short real batch; the Brain is as before, without
    gradients.

    Arguments
    ---------
    brain : brainquant.training.brain.RunBrain
        Of the recipe, before ``fit``.
    hparams : dict
        What ``load_hparams`` gives.
    train_loader : torch.utils.data.DataLoader
        The training audio.
    """
    speech, parameters = speech_of_step(brain, hparams, train_loader), count_parameters(brain)
    facts: dict[str, Any] = {**speech, **parameters}
    lines = [
        f"speech      {step_text(speech)}",
        f"parameters  {counted(parameters['parameters'])}, "
        f"{counted(parameters['trained_parameters'])} trained; the encoder has "
        f"{counted(parameters['encoder_parameters'])}",
    ]
    findings = find_small_batches(hparams, speech, train_loader)

    flop = count_flop(brain, train_loader)
    if flop is None:
        lines.append("FLOP        not counted: no clip could be read")
    else:
        facts["flop_per_second_of_speech"] = flop
        facts["flop"] = flop * speech["step_seconds"]
        lines += [
            f"FLOP        {counted(facts['flop'])} a step, {counted(flop)} a second of speech, "
            f"backward pass included",
            "            (products and convolutions; no FFT, code search, optimiser)",
        ]
    if isinstance(brain, PretrainBrain):
        masked = masked_shares(brain, hparams)
        facts["masked"] = masked
        lines += lines_of_masks(masked)
        findings += find_in_masks(brain, hparams, masked)
    return Section("One step", facts, lines, findings)


# ---- speech and parameters -----------------------------------------------------------------


def speech_of_step(brain: Any, hparams: Mapping[str, Any], train_loader: Any) -> dict[str, Any]:
    """Seconds of speech and clips of a step, from the durations of the manifest."""
    seconds = sum(float(clip["duration"]) for clip in train_loader.dataset.data.values())
    batches = train_loader.batch_sampler.total
    ranks, accumulation = world_size(), brain.grad_accumulation_factor
    in_step, turns = ranks * accumulation, -(-batches // ranks)
    full = hparams["batch_seconds"] if hparams["batch_clips"] is None else None
    return {
        "step_seconds": seconds / batches * in_step,
        "step_seconds_at_most": None if full is None else full * in_step,
        "batch_seconds": full,
        "batch_clips": hparams["batch_clips"],
        "ranks": ranks,
        "accumulation": accumulation,
        "step_clips": len(train_loader.dataset) / batches * in_step,
        "batches_per_epoch": batches,
        "steps_per_epoch": -(-turns // accumulation),
        "corpus_seconds": seconds,
    }


def step_text(speech: Mapping[str, Any]) -> str:
    """A line about the speech of a step.

    Example
    -------
    >>> step_text({"batch_seconds": 400, "batch_clips": None, "ranks": 8, "accumulation": 2,
    ...            "step_seconds": 6123.4})
    'up to 6400 s of speech (400 x 8 ranks x 2 accumulated), 6123 s on average'
    >>> step_text({"batch_seconds": 12, "batch_clips": None, "ranks": 1, "accumulation": 1,
    ...            "step_seconds": 7.74})
    'up to 12 s of speech, 7.7 s on average'
    """
    size, unit = speech["batch_seconds"], "s of speech"
    if size is None:
        size, unit = speech["batch_clips"], "clips"
    ranks, accumulation, seconds = speech["ranks"], speech["accumulation"], speech["step_seconds"]
    factors = [
        f" x {number} {name}"
        for number, name in ((ranks, "ranks"), (accumulation, "accumulated"))
        if number > 1
    ]
    product = f" ({size:g}{''.join(factors)})" if factors else ""
    return (
        f"up to {size * ranks * accumulation:g} {unit}{product}, "
        f"{seconds:.{0 if seconds >= 100 else 1}f} s on average"
    )


def count_parameters(brain: Any) -> dict[str, int]:
    """The numbers of parameters: all, those that are trained, those of the encoder."""
    parameters = list(brain.modules.parameters())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "encoder_parameters": sum(p.numel() for p in brain.raw("encoder").parameters()),
    }


def counted(number: float) -> str:
    """A large number in three digits.

    Example
    -------
    >>> [counted(n) for n in (0, 950, 94_400_000, 2.5e12, 9996)]
    ['0', '950', '94.4 M', '2.5 T', '10 k']
    """
    value, units = float(f"{number:.3g}"), ["", " k", " M", " G", " T", " P", " E"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        del units[0]
    return f"{value:.3g}{units[0]}"


def find_small_batches(
    hparams: Mapping[str, Any], speech: Mapping[str, Any], train_loader: Any
) -> list[Finding]:
    """Steps of much less speech than the keys say; ``speech`` is that of ``speech_of_step``."""
    most, held = speech["step_seconds_at_most"], speech["step_seconds"]
    if most is None or held >= HALF_FULL * most:
        return []
    remedy = "set batch_seconds: lower, and grad_accumulation_factor: higher"
    clips = train_loader.dataset.data.values()
    if fuller := fuller_batches(np.array([float(clip["duration"]) for clip in clips]), hparams):
        batch, buckets, of_batch = fuller
        wanted = min(hparams["batch_seconds"], speech["corpus_seconds"])
        accumulation = max(round(speech["accumulation"] * wanted / batch), 1)
        changes = {
            "batch_seconds": (batch, speech["batch_seconds"]),
            "grad_accumulation_factor": (accumulation, speech["accumulation"]),
            "num_buckets": (buckets, hparams["num_buckets"]),
        }
        keys = [f"{key}: {value:g}" for key, (value, now) in changes.items() if value != now]
        sees = of_batch * accumulation * speech["ranks"]
        remedy = f"set {', '.join(keys)}: a step then sees {sees:.3g} s"
    text = (
        f"a step sees {held:.3g} s of speech on average, not {most:g}: each batch is of one length "
        f"class, and many hold less"
    )
    return [Finding("batches_not_full", text, remedy)]
