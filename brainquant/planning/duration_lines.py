"""What a plan says about the time of a run: its lines and its findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..training.time_text import duration_text, moment_text
from .section import Finding
from .text import say_bytes

FEW_PASSES, MANY_PASSES = 2, 2000
WAITING = 0.1  # of the time: worth other workers
COSTLY = 0.25  # of the time: validations and checkpoints take it from the steps
# As a line says it, by the name of a part.
PARTS = {
    "before_the_first_step": "before the first step",
    "steps": "steps",
    "waiting_for_audio": "waiting for audio",
    "validations": "validations",
    "quality": "quality of the layers",
    "checkpoints": "checkpoints",
}


def lines_of(facts: Mapping[str, Any]) -> list[str]:
    """The lines of a section, from its facts."""
    lines = [
        f"{_rate(facts['steps_per_second'])}, {facts['speech_seconds_of_step']:.3g} s of speech in "
        f"each: {_speed(facts['speech_per_second'])}"
    ]
    if not facts["measured_on_own_batches"]:
        lines.append("  (from much smaller steps, so it may be far off; --minutes 10 measures it)")
    seconds = facts["seconds"]
    lines.append(
        f"{facts['steps']:,} steps ({facts['ended_by']}), "
        f"{passes_text(facts['passes'])} over the corpus"
    )
    lines.append(f"done in about {duration_text(seconds)}: {moment_text(seconds)} if begun now")
    parts = {name: spent for name, spent in facts["seconds_of_parts"].items() if spent >= 0.5}
    if len(parts) > 1:
        lines += [f"  {PARTS[name]:22} {duration_text(spent):>12}" for name, spent in parts.items()]
    if speeds := facts["reading_speech_per_second"]:
        waits = facts["share_of_time_waiting"]
        lines.append("waiting for audio, by num_workers:")
        lines += [
            f"  {number:>3}{' (set)' if int(number) == facts['num_workers'] else '':6} "
            f"{waits[number]:7.1%} of the time; reading {_speed(speed)}"
            for number, speed in speeds.items()
        ]
    if facts["checkpoints_kept"] and facts["checkpoint_bytes"]:
        all_bytes = facts["checkpoints_kept"] * facts["checkpoint_bytes"]
        lines.append(
            f"checkpoints of {say_bytes(facts['checkpoint_bytes'])}, at most "
            f"{facts['checkpoints_kept']} at once: {say_bytes(all_bytes)} of "
            f"{say_bytes(facts['free_bytes'])} free"
        )
    return lines


def _rate(by_second: float) -> str:
    """How often a step is made, as a text.

    Example
    -------
    >>> _rate(2.31), _rate(0.02)
    ('2.3 steps a second', '50 s a step')
    """
    return f"{by_second:.2g} steps a second" if by_second >= 1 else f"{1 / by_second:.3g} s a step"


def passes_text(number: float) -> str:
    """Passes over the corpus, as a text.

    Example
    -------
    >>> passes_text(0.041), passes_text(6.44), passes_text(1000.0)
    ('0.041 passes', '6.4 passes', '1,000 passes')
    """
    if number < 1:
        return f"{number:.2g} passes"
    return f"{number:,.1f} passes" if number < 100 else f"{number:,.0f} passes"


def _speed(by_second: float) -> str:
    """Seconds of speech a second, as a text.

    Example
    -------
    >>> _speed(3279.6), _speed(2.511)
    ('3,280 s of speech a second', '2.51 s of speech a second')
    """
    return f"{float(f'{by_second:.3g}'):,g} s of speech a second"


def find_in_duration(facts: Mapping[str, Any]) -> list[Finding]:
    """The findings of a section, from its facts; the worst first."""
    return [*find_disk(facts), *find_passes(facts), *_find_waiting(facts), *_find_costly(facts)]


def find_disk(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Checkpoints that the disk has no room for."""
    needed = facts["checkpoints_kept"] * facts["checkpoint_bytes"]
    if needed > (free := facts["free_bytes"]):
        yield Finding(
            "disk_too_small",
            f"checkpoints need up to {say_bytes(needed)}, and {say_bytes(free)} are free where "
            f"{facts['output_folder']} is",
            "set keep_checkpoints: lower, or output_folder: to a larger disk",
        )


def find_passes(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Too few or too many passes over the corpus."""
    passes, ended_by = facts["passes"], facts["ended_by"]
    limits = f"optimizer_step_limit is {facts['steps']:,}"
    if ended_by == "number_of_epochs":
        limits = f"number_of_epochs is {passes:,.0f}"

    def remedy(wanted: int) -> str:
        is_epochs = ended_by == "number_of_epochs"
        return f"set {ended_by}: {wanted if is_epochs else wanted * facts['steps_of_epoch']}"

    if passes < FEW_PASSES:
        yield Finding(
            "few_passes",
            f"the run sees the corpus {passes:.2g} times ({limits}): some clips are hardly learned",
            f"{remedy(FEW_PASSES)} or more",
        )
    elif passes > MANY_PASSES:
        yield Finding(
            "many_passes",
            f"the run sees the corpus {passes:,.0f} times ({limits}): it learns the clips by heart",
            f"{remedy(MANY_PASSES)} or less, or take more speech",
        )


def _find_waiting(facts: Mapping[str, Any]) -> Iterator[Finding]:
    waits = {int(number): share for number, share in facts["share_of_time_waiting"].items()}
    now = facts["num_workers"]
    if waits.get(now, 0.0) <= WAITING:
        return
    best = next(n for n in sorted(waits) if waits[n] <= min(waits.values()) + WAITING / 5)
    remedy = f"set num_workers: {best}"
    if waits[best] > WAITING:
        remedy = (
            f"set num_workers: {max(2 * now, 8)} if there are as many cores, or pack the clips "
            f"with brainquant shards"
        )
    yield Finding(
        "waits_for_audio",
        f"the training waits for audio {waits[now]:.0%} of the time with num_workers: {now}",
        remedy,
    )


def _find_costly(facts: Mapping[str, Any]) -> Iterator[Finding]:
    parts, total = facts["seconds_of_parts"], facts["seconds"]
    for name, remedy in (
        ("validations", "validate on less speech: set valid_csv: to a shorter manifest"),
        ("checkpoints", "set output_folder: to a folder on a faster disk"),
    ):
        if (share := parts[name] / total) > COSTLY:
            yield Finding(
                f"costly_{name}",
                f"{name} take {share:.0%} of the time: one after each {facts['steps_of_epoch']} "
                f"steps",
                remedy,
            )
