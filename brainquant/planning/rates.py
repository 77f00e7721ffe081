"""Learning rate, batch and warm-up of a run beside those that the recipe was made with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..training.defaults import tag_of
from ..training.resolve import read_yaml, resolve
from ..training.values_by_key import values_by_key
from .length import Length
from .section import Finding, Section

TOO_HIGH = 2.0  # times the learning rate that the batch allows
SHORT_WARMUP = 0.02  # of the steps
USUAL_WARMUP = 0.08
NUMBERS = (
    "lr", "batch_seconds", "batch_clips", "grad_accumulation_factor", "warmup_steps",
    "cooldown_steps", "optimizer_step_limit", "lr_batch_seconds",
)  # fmt: skip


class Rates(NamedTuple):
    """What the learning rate depends on.

    Attributes
    ----------
    lr : float or None
        The highest learning rate; None if no key says it.
    step_seconds : float or None
        Seconds of speech that a step may have; None if a batch is a number of clips.
    warmup_steps, steps : int
        Steps of the warm-up, and of the whole run.
    accumulation : int
        Batches of a step on each rank.
    """

    lr: float | None
    step_seconds: float | None
    warmup_steps: int
    steps: int
    accumulation: int = 1


def allowed_rate(lr: float, batch_ratio: float) -> float:
    """The highest learning rate that scaling rules give for another batch.

    Adam's learning rate grows with the square root of the batch (Malladi et al. 2022,
    https://arxiv.org/abs/2205.10287), that of plain gradient descent with the batch itself (Goyal
    et al. 2017, https://arxiv.org/abs/1706.02677). The higher of both is allowed here.

    Arguments
    ---------
    lr : float
        The learning rate of the recipe.
    batch_ratio : float
        The seconds of a step over those of the recipe.

    Example
    -------
    >>> allowed_rate(0.001, 0.25), allowed_rate(0.001, 4)
    (0.0005, 0.004)
    """
    return lr * max(batch_ratio, math.sqrt(batch_ratio))


def check_rates(
    hparams_file: str, overrides: Mapping[str, Any], hparams: Mapping[str, Any], length: Length
) -> Section:
    """The part of a plan about the learning rate.

    Arguments
    ---------
    hparams_file : str
        The YAML; what it says without overrides is what the recipe was made with.
    overrides : dict
        What the command line changes in it.
    hparams : dict
        What ``load_hparams`` gives.
    length : Length
        How many steps the run makes, and what they hold.
    """
    recipe, run = recipe_rates(hparams_file, overrides), run_rates(hparams, length)
    ratio = 1.0
    if recipe.step_seconds and run.step_seconds:
        ratio = run.step_seconds / recipe.step_seconds
    facts: dict[str, Any] = {
        "run": run._asdict(),
        "recipe": recipe._asdict(),
        "speech_seconds_of_step": length.speech_of_step,
        "batch_ratio": ratio,
    }
    if recipe.lr is not None:
        facts["lr_by_square_root"] = recipe.lr * math.sqrt(ratio)
        facts["lr_in_proportion"] = recipe.lr * ratio
    findings = [
        *_find_rate(recipe, run, ratio),
        *_find_warmup(run),
        *_find_cooldown(hparams, length),
    ]
    return Section("Learning rate", facts, _lines(recipe, run, ratio), findings)


def recipe_rates(hparams_file: str, overrides: Mapping[str, Any]) -> Rates:
    """What a YAML says without overrides, but for those of keys that it leaves to the user."""
    placeholders = {
        key: overrides[key]
        for key, value in read_yaml(hparams_file).items()
        if key in overrides and tag_of(value) == "!PLACEHOLDER"
    }
    values = values_by_key(resolve(hparams_file, placeholders))
    numbers = {name: _number(values.get(name)) for name in NUMBERS}
    return _rates(numbers, int(numbers["optimizer_step_limit"] or 0))


def run_rates(hparams: Mapping[str, Any], length: Length) -> Rates:
    """What a run has, from its hyperparameters."""
    numbers = {name: _number(hparams.get(name)) for name in NUMBERS}
    return _rates({**numbers, "lr_batch_seconds": None}, length.steps)


def _rates(numbers: Mapping[str, float | None], steps: int) -> Rates:
    accumulation = int(numbers["grad_accumulation_factor"] or 1)
    seconds = None
    if numbers["batch_clips"] is None and numbers["batch_seconds"] is not None:
        seconds = numbers["batch_seconds"] * accumulation
    return Rates(
        lr=numbers["lr"],
        step_seconds=numbers["lr_batch_seconds"] or seconds,
        warmup_steps=int(numbers["warmup_steps"] or 0),
        steps=steps,
        accumulation=accumulation,
    )


def _number(value: Any) -> float | None:
    """A number of a YAML, or None for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _lines(recipe: Rates, run: Rates, ratio: float) -> list[str]:
    rows = [
        ("", "this run", "the recipe"),
        ("lr", _say(run.lr), _say(recipe.lr)),
        ("one step sees, s", _say(run.step_seconds), _say(recipe.step_seconds)),
        ("warmup_steps", _say(run.warmup_steps), _say(recipe.warmup_steps)),
        ("steps", _say(run.steps), _say(recipe.steps)),
    ]
    lines = [f"{name:18}{now:>12}{then:>12}" for name, now, then in rows]
    if recipe.lr is not None and not math.isclose(ratio, 1.0):
        lines.append(
            f"for {ratio:.3g} of the batch: lr {recipe.lr * math.sqrt(ratio):.2g} by the square "
            f"root (Adam), {recipe.lr * ratio:.2g} in proportion"
        )
    return lines


def _say(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:,.0f}" if number >= 1000 else f"{number:g}"


def _find_rate(recipe: Rates, run: Rates, ratio: float) -> Iterator[Finding]:
    if recipe.lr is None or run.lr is None:
        return
    allowed = allowed_rate(recipe.lr, ratio)
    if run.lr <= TOO_HIGH * allowed:
        return
    text = f"lr is {run.lr:g}, {run.lr / allowed:.1f} times what the recipe has"
    remedy = f"set lr: {allowed:.1g}, or compare both in short runs"
    if not math.isclose(ratio, 1.0):
        text = (
            f"lr is {run.lr:g} for steps of {run.step_seconds:g} s; the recipe has {recipe.lr:g} "
            f"for {recipe.step_seconds:g} s, which is {allowed:.2g} for these"
        )
        remedy = f"set lr: {allowed:.1g}"
        if ratio < 1 and run.lr <= TOO_HIGH * recipe.lr:
            factor = round(run.accumulation / ratio)
            remedy = f"set grad_accumulation_factor: {factor}, or lr: {allowed:.1g}"
    yield Finding("high_lr", text, remedy)


def _find_warmup(run: Rates) -> Iterator[Finding]:
    if run.warmup_steps >= run.steps:
        yield Finding(
            "endless_warmup",
            f"the run ends at step {run.steps:,}, before the end of the warm-up of "
            f"{run.warmup_steps:,} steps",
            f"set warmup_steps: {max(round(USUAL_WARMUP * run.steps), 1)}",
        )
    elif run.warmup_steps < SHORT_WARMUP * run.steps:
        yield Finding(
            "short_warmup",
            f"the warm-up of {run.warmup_steps:,} steps is {run.warmup_steps / run.steps:.1%} of "
            f"the run, and the recipes have 6 % to 10 %",
            f"set warmup_steps: {round(USUAL_WARMUP * run.steps)}",
        )


def _find_cooldown(hparams: Mapping[str, Any], length: Length) -> Iterator[Finding]:
    limit = _number(hparams.get("optimizer_step_limit"))
    if length.ended_by != "number_of_epochs" or limit is None:
        return
    cooldown = _number(hparams.get("cooldown_steps")) or 0
    if length.steps > limit - cooldown / 2:
        return
    yield Finding(
        "no_cooldown",
        f"number_of_epochs: ends the run at step {length.steps:,} of {limit:,.0f}, where the "
        f"learning rate is still high",
        f"set optimizer_step_limit: {length.steps}, which the schedule follows",
    )
