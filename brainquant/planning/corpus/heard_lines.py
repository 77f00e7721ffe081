"""A sample of audio as lines for a reader, and as facts for a program."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .copies import Copies
from .heard import CLIPPED, SILENT, Heard
from .sample import Reading
from .wording import labelled, say_count, say_percent, say_time

SHOWN = 3  # reasons, rates


def heard_facts(heard: Heard) -> dict[str, Any]:
    """What the sample is like, as values of JSON."""
    names = ("low", "median", "high")
    return {
        **heard._asdict(),
        "levels": dict(zip(names, heard.levels)) if math.isfinite(heard.levels[1]) else None,
        "rates": {str(rate): number for rate, number in heard.rates.items()},
        "channels": {str(channels): number for channels, number in heard.channels.items()},
        "cutoffs": {f"{cutoff:g}": number for cutoff, number in heard.cutoffs.items()},
    }


def heard_lines(
    heard: Heard, bad: Sequence[Reading], copies: Copies, *, clips: int, seconds: float, rate: int
) -> Iterator[str]:
    """What the training clips of the sample are like, in lines of at most 76 characters.

    ``clips`` is the number of all training clips, ``seconds`` the time that the sample took, and
    ``rate`` the sample rate of training.
    """
    if heard.clips + len(bad) < clips:
        text = (
            f"{heard.clips + len(bad):,} of {say_count(clips, 'training clip')}, drawn at random "
            f"and read in {say_time(seconds)}; shares below are theirs"
        )
    else:
        text = f"all {say_count(clips, 'training clip')}, read in {say_time(seconds)}"
    yield from labelled("audio", text)
    if bad:
        yield from labelled(
            "unreadable", f"{say_count(len(bad), 'clip')}, such as {bad[0].clip}: {bad[0].reason}"
        )
    if not heard.clips:
        return
    low, median, high = heard.levels
    if math.isfinite(median):
        yield from labelled(
            "level",
            f"median {median:.0f} dB, 90 % of the clips from {low:.0f} to {high:.0f} dB (RMS below "
            f"full scale)" + _clips_text("below -60 dB", heard.very_quiet),
        )
    yield from labelled(
        "silence",
        f"{say_percent(heard.quiet)} of the time, {say_percent(heard.empty)} digital"
        + _clips_text(f"below {SILENT:.0f} dB", heard.silent),
    )
    yield from labelled("clipping", _clipping_text(heard))
    yield from labelled("rates", _rates_text(heard.rates, rate))
    yield from labelled("bandwidth", _bandwidth_text(heard, rate))
    yield from labelled("copies", _copies_text(copies))


def _clips_text(what: str, number: int) -> str:
    return f"; {say_count(number, 'clip')} {what}" if number else ""


def _clipping_text(heard: Heard) -> str:
    if not heard.clipped:
        return f"no clip (with more than {100 * CLIPPED:g} % of its samples)"
    return (
        f"{say_percent(heard.clipped / heard.clips)} of the clips (more than {100 * CLIPPED:g} % "
        f"of their samples), {say_percent(heard.clipped_samples)} of all samples"
    )


def _rates_text(rates: Mapping[int, int], rate: int) -> str:
    total = sum(rates.values())
    parts = [
        f"{found / 1000:g} kHz" + (f" ({say_percent(number / total)})" if len(rates) > 1 else "")
        for found, number in [*rates.items()][:SHOWN]
    ]
    text = ", ".join([*parts, *["..."][: len(rates) > SHOWN]])
    return text if {*rates} == {rate} else f"{text}; resampled to {rate / 1000:g} kHz"


def _bandwidth_text(heard: Heard, rate: int) -> str:
    if not heard.judged:
        return "unknown: the clips are too quiet to say"
    parts = [
        f"{say_percent(number / heard.judged)} of the clips have nothing above {cutoff / 1000:.2g} "
        f"kHz"
        for cutoff, number in heard.cutoffs.items()
    ]
    highest = f"{rate / 2000:g} kHz"
    if not parts:
        return f"up to {highest}"
    is_all = sum(heard.cutoffs.values()) == heard.judged
    return ", ".join(parts) + ("" if is_all else f"; the others reach {highest}")


def _copies_text(copies: Copies) -> str:
    texts, about = [], "about " if copies.is_estimate else ""
    if copies.found:
        texts.append(
            f"{about}{say_percent(copies.share)} of the training clips have the samples of another "
            f"one"
        )
    if copies.shared_found:
        texts.append(
            f"{about}{say_percent(copies.shared)} of the validation clips have those of a training "
            f"clip"
        )
    return "; ".join(texts) or "none found"
