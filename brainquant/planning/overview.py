"""The short form of a plan, which a training shows in its first lines: nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from speechbrain.utils.logger import get_logger

from ..ranks import rank
from .besides import state_bytes
from .corpus.wording import say_count, say_time
from .data import manifest_facts
from .duration import free_bytes, kept_checkpoints
from .duration_lines import find_disk, find_passes, passes_text
from .length import run_length
from .section import Section
from .step import count_parameters, counted, find_small_batches, speech_of_step, step_text
from .text import say_bytes

logger = get_logger(__name__)


def show_overview(
    brain: Any, hparams: Mapping[str, Any], train_loader: Any, valid_loader: Any
) -> None:
    """Logs what a run is about to do, on the main process, and warns of what will go wrong.

    It reads no audio and measures nothing. An error in it is logged and does not end the run.

    Arguments
    ---------
    brain : brainquant.training.brain.RunBrain
        Of the recipe, before ``fit``.
    hparams : dict
        What ``load_hparams`` gives.
    train_loader, valid_loader : torch.utils.data.DataLoader or None
        Of ``make_loaders``; None for no validation.
    """
    if rank() != 0 or brain.debug:  # a --debug run makes a few steps, whatever its limits
        return
    try:
        section = make_overview(brain, hparams, train_loader, valid_loader)
    except Exception:
        logger.exception("The overview of the run has failed; the run goes on")
        return
    logger.info("\n".join([f"{section.title}:", *(f"  {line}" for line in section.lines)]))
    for finding in section.findings:
        logger.warning(f"{finding.text}; {finding.remedy}")


def make_overview(
    brain: Any, hparams: Mapping[str, Any], train_loader: Any, valid_loader: Any
) -> Section:
    """Data, a step, the length of the run, its parameters and the disk; see ``show_overview``."""
    data = manifest_facts(hparams, train_loader, valid_loader)
    speech, parameters = speech_of_step(brain, hparams, train_loader), count_parameters(brain)
    facts = {**speech, **parameters, **disk_facts(brain, hparams)}
    lines = [
        f"data    {_data_text(data.facts)}",
        f"step    {step_text(speech)}",
        f"model   {counted(parameters['parameters'])} parameters, "
        f"{counted(parameters['trained_parameters'])} of them trained",
    ]
    small = find_small_batches(hparams, speech, train_loader)
    findings = [*find_disk(facts), *small, *data.findings]
    limits = brain.optimizer_step_limit, getattr(hparams["epoch_counter"], "limit", None)
    if any(limits):
        length = run_length(brain, dict(hparams), train_loader)
        facts.update(
            steps=length.steps,
            ended_by=length.ended_by,
            steps_of_epoch=length.steps_of_epoch,
            passes=length.passes,
        )
        lines.insert(
            2,
            f"length  {length.steps:,} steps ({length.ended_by}), {passes_text(length.passes)} "
            f"over the corpus",
        )
        findings[:0] = find_passes(facts)
    if facts["checkpoints_kept"]:
        lines.append(
            f"disk    up to {facts['checkpoints_kept']} checkpoints of "
            f"{say_bytes(facts['checkpoint_bytes'])}, {say_bytes(facts['free_bytes'])} free"
        )
    return Section("This run", {**facts, "data": data.facts}, lines, findings)


def disk_facts(brain: Any, hparams: Mapping[str, Any]) -> dict[str, Any]:
    """The size and number of checkpoints, and the room for them.

    Without those of the quantisers' and optimiser's smaller parts: a few kilobytes.
    """
    in_modules = sum(
        value.numel() * value.element_size()
        for module in brain.modules.values()
        for value in module.state_dict().values()
        if isinstance(value, torch.Tensor)
    )
    trained = sum(p.numel() for p in brain.modules.parameters() if p.requires_grad)
    return {
        "checkpoint_bytes": round(in_modules + trained * state_bytes(hparams["optimizer"])),
        "checkpoints_kept": kept_checkpoints(brain, 10**9),
        "free_bytes": free_bytes(hparams["output_folder"]),
        "output_folder": hparams["output_folder"],
    }


def _data_text(facts: Mapping[str, Any]) -> str:
    """The speech and clips of training and validation."""
    train, valid = facts["train"], facts.get("valid")
    text = f"{say_time(train['seconds'])} in {say_count(train['clips'], 'clip')}"
    if left_out := train["left_out"]["short"] + train["left_out"]["long"]:
        text += f", {left_out:,} left out"
    return text + (f"; validation {say_time(valid['seconds'])}" if valid else "")
