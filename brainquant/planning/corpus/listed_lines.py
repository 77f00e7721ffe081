"""The manifests of a run as lines for a reader, and as facts for a program."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from .listed import (
    Listed,
    Split,
    largest_file,
    left_out_of,
    lengths_of,
    shared_speakers,
    speakers_of,
)
from .wording import labelled, say_count, say_percent, say_time

SHOWN = 2  # reasons of files that cannot be used


def listed_facts(listed: Listed) -> dict[str, Any]:
    """Everything that the manifests say, as values of JSON."""
    facts: dict[str, Any] = {"train": _facts_of(listed.train)}
    if listed.valid:
        facts["valid"] = {
            **_facts_of(listed.valid),
            "clips_in_training": len(listed.shared_clips),
            "speakers_in_training": shared_speakers(
                listed.train.selection, listed.valid.selection
            ),
        }  # fmt: skip
    facts["batches"], facts["padding_share"] = listed.batches, listed.padding
    if listed.preparation:
        facts["preparation"] = {
            "counts": {part: it._asdict() for part, it in listed.preparation.counts.items()},
            "unusable": len(listed.preparation.left_out),
            "reasons": dict(_reasons(listed.preparation.left_out)),
        }
    return facts


def _facts_of(split: Split) -> dict[str, Any]:
    speakers = speakers_of(split.selection)
    _, seconds, _ = largest_file(split)
    return {
        "clips": len(split.clips),
        "seconds": split.seconds,
        "lengths": lengths_of(split.selection.seconds_N)._asdict(),
        "left_out": left_out_of(split.selection)._asdict(),
        "speakers": speakers._asdict() if speakers.number else None,
        "largest_file_share": seconds / split.seconds,
    }


def listed_lines(listed: Listed, hparams: Mapping[str, Any]) -> Iterator[str]:
    """What the manifests say, in lines of at most 76 characters."""
    yield from labelled("training", _split_text(listed.train))
    if listed.valid:
        yield from labelled("validation", _split_text(listed.valid))
    lengths = lengths_of(listed.train.selection.seconds_N)
    yield from labelled(
        "lengths",
        f"shortest {say_time(lengths.shortest)}, median {say_time(lengths.median)}, 95 % below "
        f"{say_time(lengths.below_95)}, longest {say_time(lengths.longest)}",
    )
    yield from labelled("left out", "; ".join(_left_out_texts(listed)) or "nothing")
    buckets = "" if hparams["batch_clips"] else f", num_buckets: {hparams['num_buckets']}"
    yield from labelled(
        "padding",
        f"{say_percent(listed.padding)} of the seconds in batches "
        f"({say_count(listed.batches, 'batch')} in an epoch{buckets})",
    )
    yield from labelled("speakers", _speaker_text(listed))


def _split_text(split: Split) -> str:
    return f"{say_count(len(split.clips), 'clip')}, {say_time(split.seconds)}"


def _left_out_texts(listed: Listed) -> Iterator[str]:
    for name, split in (("training", listed.train), ("validation", listed.valid)):
        if not split or not (left := left_out_of(split.selection)).short + left.long:
            continue
        parts = []
        if left.short:
            parts.append(
                f"{left.short:,} below min_seconds: {split.selection.min_seconds:g} "
                f"({say_time(left.short_seconds)})"
            )
        if left.long:
            longest = f", the longest {say_time(left.longest)}" if left.long > 1 else ""
            parts.append(
                f"{left.long:,} above max_seconds: {split.selection.max_seconds:g} "
                f"({say_time(left.long_seconds)}{longest})"
            )
        yield f"of {say_count(left.clips, f'{name} clip')} {' and '.join(parts)}"
    if not listed.preparation:
        return
    for part, found in listed.preparation.counts.items():
        source = "source" if part == "train" else "valid_source"
        if found.short:
            yield (
                f"of the {say_count(found.clips, 'clip')} of {source}: {found.short:,} or parts of "
                f"them below min_seconds ({say_time(found.short_seconds)})"
            )
    if left_out := listed.preparation.left_out:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in _reasons(left_out)[:SHOWN])
        yield f"{len(left_out):,} in left_out.csv: {reasons}"


def _reasons(left_out: list[tuple[str, str]]) -> list[tuple[str, int]]:
    """The kinds of reasons, without their numbers and remedies, the commonest first.

    Example
    -------
    >>> _reasons([("a", "ends at sample 3; copy it again"), ("b", "ends at sample 14")])
    [('ends at sample ...', 2)]
    """
    kinds = (re.sub(r"\d[\d.,]*", "...", reason.split("; ")[0]) for _, reason in left_out)
    return Counter(kinds).most_common()


def _speaker_text(listed: Listed) -> str:
    train = speakers_of(listed.train.selection)
    if not train.number:
        return "unknown: the manifest has no column spk_id, or nothing in it"
    text = f"{train.number:,} in training"
    if train.number > 1:
        text += f", the largest has {say_percent(train.largest_share)} of it"
    if train.unknown_clips:
        text += f", {say_count(train.unknown_clips, 'clip')} of unknown speakers"
    if listed.valid and (number := speakers_of(listed.valid.selection).number):
        shared = shared_speakers(listed.train.selection, listed.valid.selection)
        text += f"; {number:,} in validation, {shared or 'none'} of them in training"
    return text
