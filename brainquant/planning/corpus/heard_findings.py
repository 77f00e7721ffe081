"""What a sample of the audio shows that will go wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..section import Finding
from .copies import Copies
from .heard import CLIPPED, LARGE_OFFSET, SILENT, VERY_QUIET, Heard
from .sample import Reading
from .wording import say_count, say_percent

FEW = 0.01  # of the clips: silent ones, or copies
SOME = 0.05  # of the clips: with other faults
ALL = 0.95
TWICE = 0.5  # of the clips that have a copy
MUCH_SILENCE = 0.5  # of the time
MUCH_EMPTINESS = 0.2  # of the time: digital silence


def heard_findings(
    heard: Heard,
    copies: Copies,
    read: int,
    bad: Sequence[Reading],
    clips: int,
    hparams: Mapping[str, Any],
) -> Iterator[Finding]:
    """What a listener of the sample should know, the worst first.

    ``heard`` is about training. ``read`` is the number of the clips that were read, and ``bad`` has
    those of them that cannot be used, of validation too; ``clips`` is the number of all clips.
    """
    yield from _unreadable(read, bad, clips, hparams)
    yield from _copies(copies)
    yield from _silence(heard)
    yield from _narrow_band(heard, hparams)
    yield from _clips_with_faults(heard)


def _unreadable(
    read: int, bad: Sequence[Reading], clips: int, hparams: Mapping[str, Any]
) -> Iterator[Finding]:
    limit = hparams["max_bad_audio"]
    if bad and len(bad) / read * clips > math.ceil(limit * clips):
        yield Finding(
            "unreadable",
            f"{len(bad):,} of {say_count(read, 'clip')} that were read cannot be used "
            f"({say_percent(len(bad) / read)}), and the run ends at more than max_bad_audio: "
            f"{limit:g}; the first is {bad[0].reason}",
            "mend these clips, take them out of the manifest, or set max_bad_audio: higher",
        )


def _copies(copies: Copies) -> Iterator[Finding]:
    about = "about " if copies.is_estimate else ""
    if copies.share >= FEW:
        one, other = copies.pairs[0]
        what, where = f"such as {one!r} and {other!r}", " and ".join(copies.folders)
        if copies.share >= TWICE:
            what += f": the corpus is there twice, in {where}"
        yield Finding(
            "corpus_twice" if copies.share >= TWICE else "copies",
            f"{about}{say_percent(copies.share)} of the training clips have exactly the samples of "
            f"another one, {what}",
            "take one of each two out of train_csv:, or one of the folders out of source:",
        )
    if copies.shared >= FEW:
        one, other = copies.shared_pairs[0]
        yield Finding(
            "shared_clips",
            f"{about}{say_percent(copies.shared)} of the validation clips have exactly the samples "
            f"of a training clip, such as {other!r} those of {one!r}: the validation does not show "
            f"what is learnt by heart",
            "take them out of train_csv: or valid_csv:",
        )


def _silence(heard: Heard) -> Iterator[Finding]:
    if heard.silent and heard.silent >= FEW * heard.clips:
        yield Finding(
            "silent_clips",
            f"{heard.silent:,} of {say_count(heard.clips, 'clip')} that were read "
            f"({say_percent(heard.silent / heard.clips)}) are silent, below {SILENT:.0f} dB",
            "take them out of train_csv:, or mend the recording or its conversion",
        )
    spoken = heard.clips - heard.silent
    if spoken and (heard.quiet >= MUCH_SILENCE or heard.empty >= MUCH_EMPTINESS):
        yield Finding(
            "silence",
            f"{say_percent(heard.quiet)} of the time is silence ({say_percent(heard.empty)} "
            f"digital): many frames of a batch teach nothing, and a few codes take them all",
            "cut long pauses, or take such clips out of train_csv:",
        )


def _narrow_band(heard: Heard, hparams: Mapping[str, Any]) -> Iterator[Finding]:
    narrow, rate = sum(heard.cutoffs.values()), hparams["sample_rate"]
    if narrow < 2 or narrow < SOME * heard.judged:
        return
    commonest = next(iter(heard.cutoffs))
    cutoffs = " or ".join(f"{cutoff / 1000:.2g}" for cutoff in sorted(heard.cutoffs))
    if narrow >= ALL * heard.judged:
        remedy = f"set sample_rate: {2 * commonest:g} and resample: True, or use other recordings"
    else:
        remedy = (
            f"take one kind out of train_csv:, or set sample_rate: {2 * commonest:g} and "
            f"resample: True for all; else codes say which kind a clip is"
        )
    yield Finding(
        "narrow_band",
        f"{say_percent(narrow / heard.judged)} of the clips have nothing above "
        f"{cutoffs} kHz, where sample_rate: {rate} reaches {rate / 2000:g} kHz: they were recorded "
        f"or sent at a lower rate",
        remedy,
    )


def _clips_with_faults(heard: Heard) -> Iterator[Finding]:
    for name, number, what, remedy in (
        (
            "clipping", heard.clipped,
            f"are clipped: more than {100 * CLIPPED:g} % of their samples are cut off at a peak",
            "take them out of train_csv:, or convert the recordings again at a lower level",
        ),
        (
            "very_quiet", heard.very_quiet,
            f"are very quiet, below {VERY_QUIET:.0f} dB: with 16 bits, their noise is near",
            "raise their level, or take them out of train_csv:",
        ),
        (
            "offset", heard.offset,
            f"have an offset of {say_percent(LARGE_OFFSET)} of their level or more",
            "take out the offset with a high-pass filter at 20 Hz",
        ),
    ):  # fmt: skip
        if number and number >= SOME * heard.clips:
            share = say_percent(number / heard.clips)
            yield Finding(name, f"{share} of the clips {what}", remedy)
