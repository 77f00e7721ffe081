"""Finds the largest batch that fits by real steps on the largest batches of each size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .batch_search import FoundBatch, TriedBatch
from .capacity import Capacity, in_gib, machine_capacity
from .memory import MARGIN
from .trial import run_in_process

DEFAULT_SECONDS = 300.0


def find_batch(
    argv: Sequence[str], *, seconds: float = DEFAULT_SECONDS, capacity: Capacity | None = None
) -> FoundBatch:
    """The largest ``batch_seconds`` whose largest batch fits, by real optimiser steps.

    A step that runs out of memory is caught, and the search goes on in the same process, which is
    one of its own: whatever happens to it, the caller gets an answer or a ValueError. On a CPU the
    process may have no more than the capacity, so that it is not the system that ends it.

    Arguments
    ---------
    argv : sequence of str
        What the recipe's ``train.py`` takes; see ``run_trial``.
    seconds : float
        When to end, from now. A step that has begun ends later.
    capacity : Capacity or None
        The memory of the CPU; None takes that of this machine. A GPU says its own.

    Raises
    ------
    ValueError
        If the recipe cannot be trained.
    """
    values = run_in_process(
        "find_batch", argv, seconds=seconds, capacity=capacity or machine_capacity()
    )
    return FoundBatch(**{**values, "tries": [TriedBatch(*tried) for tried in values["tries"]]})


def describe_found(found: FoundBatch) -> list[str]:
    """The lines of a terminal about what was found, each at most 76 characters long.

    Example
    -------
    >>> tries = [TriedBatch(200.0, 10, 20.0, False, None), TriedBatch(100.0, 5, 20.0, True, 2**31)]
    >>> print("\\n".join(describe_found(FoundBatch("batch_seconds", 100.0, tries, True, 2**32))))
    batch_seconds: 200: not enough memory for 10 clips of up to 20.0 s
    batch_seconds: 100: 2.00 GiB for 5 clips of up to 20.0 s
    The largest batch_seconds that fits into 4.00 GiB: 100 (10% stay free)
    """
    lines = []
    for tried in found.tries:
        what = f"{tried.clips} clips of up to {tried.longest_seconds:.1f} s"
        needs = "not enough memory" if tried.peak_bytes is None else in_gib(tried.peak_bytes)
        if not tried.fits and tried.peak_bytes is not None:
            needs += ", too much,"
        lines.append(f"{found.key}: {tried.value:g}: {needs} for {what}")
    fits, margin = "fits", ""
    if found.room_bytes is not None:
        fits, margin = f"fits into {in_gib(found.room_bytes)}", f" ({MARGIN:.0%} stay free)"
    tried = "" if found.whole else "was tried and "
    if found.value is None:
        end = f"No {found.key} {'that ' + tried if tried else ''}{fits}{margin}"
    else:
        end = f"The largest {found.key} that {tried}{fits}: {found.value:g}{margin}"
    return [*lines, end]


def found_facts(found: FoundBatch) -> dict[str, Any]:
    """The result as values of JSON."""
    return {**found._asdict(), "tries": [tried._asdict() for tried in found.tries]}
