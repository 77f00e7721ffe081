"""What the manifests of a run say that will go wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ..section import Finding
from .listed import Listed, largest_file, left_out_of, lengths_of, shared_speakers, speakers_of
from .padding import better_buckets
from .wording import say_count, say_percent, say_time

MANY_CLIPS = 0.2  # of the clips that are left out
MANY_SECONDS = 0.1  # of the seconds
FAR_LONGER = 10  # times max_seconds, or the length of most clips: a recording that was not cut
LONG = 60.0  # seconds of a clip that is worth a remark
ONE_FILE = 0.25  # of the seconds in one file, if it is
FAR_LARGER = 20  # times as long as the median file
SHORT = 1.0  # seconds: shorter clips have little context
FEW_SECONDS = 900.0  # of training
LARGE_SPEAKER = 0.6  # of the seconds
MUCH_PADDING = 0.2  # of the seconds of batches
FEW_BATCHES = 10  # an epoch of fewer batches has too few clips to speak of padding
UNUSABLE = 0.05  # of the files and clips of a source


def listed_findings(listed: Listed, hparams: Mapping[str, Any]) -> Iterator[Finding]:
    """What a reader of the manifests should know, the worst first."""
    yield from _shared_clips(listed)
    yield from _left_out(listed, hparams)
    yield from _few_seconds(listed)
    yield from _unusable(listed)
    yield from _long_clips(listed, hparams)
    yield from _short_clips(listed)
    yield from _speakers(listed)
    yield from _padding(listed, hparams)


def _shared_clips(listed: Listed) -> Iterator[Finding]:
    if listed.valid and (pairs := listed.shared_clips):
        share = say_percent(len(pairs) / len(listed.valid.clips))
        yield Finding(
            "shared_clips",
            f"{say_count(len(pairs), 'validation clip')} ({share}) share audio with training "
            f"clips, such as {pairs[0][1]!r}: the validation does not show what is learnt by heart",
            "take them out of train_csv: or valid_csv:",
        )


def _left_out(listed: Listed, hparams: Mapping[str, Any]) -> Iterator[Finding]:
    left, selection = left_out_of(listed.train.selection), listed.train.selection
    short, short_seconds, clips, seconds = left.short, left.short_seconds, left.clips, left.seconds
    if listed.preparation:  # it has left out clips before there were manifests
        counts = listed.preparation.counts
        rest = [listed.valid] if listed.valid and "valid" not in counts else []
        prepared = counts["train"]
        short += prepared.short
        short_seconds += prepared.short_seconds
        clips += prepared.short + sum(len(split.clips) for split in rest)
        seconds += prepared.short_seconds + sum(split.seconds for split in rest)
    number, lost = short + left.long, short_seconds + left.long_seconds
    causes = []
    if short:
        causes.append(f"{short:,} below min_seconds: {selection.min_seconds:g}")
    if left.long:
        causes.append(
            f"{left.long:,} above max_seconds: {selection.max_seconds:g}, of which "
            f"{selection.longest_left_out!r} lasts {say_time(left.longest)}"
        )
    many = number >= MANY_CLIPS * clips or lost >= MANY_SECONDS * seconds
    uncut = left.long and left.longest >= FAR_LONGER * selection.max_seconds
    if not number or not (many or uncut):
        return
    remedies = []
    if left.long and (uncut or left.long_seconds >= short_seconds):
        remedies.append("cut long clips, as recipes/OwnSpeech does, or set max_seconds: higher")
    if short and (short >= left.long or short_seconds > left.long_seconds):
        is_span = selection.min_seconds > hparams["min_seconds"]
        remedies.append(
            "set mask_length: lower, because a masked span must fit into a clip"
            if is_span
            else "set min_seconds: lower, or join short clips"
        )
    yield Finding(
        "left_out" if many else "long_left_out",
        f"{number:,} of {say_count(clips, 'clip')} and {say_time(lost)} of {say_time(seconds)} "
        f"({say_percent(lost / seconds)}) are left out: {' and '.join(causes)}",
        "; ".join(remedies),
    )


def _few_seconds(listed: Listed) -> Iterator[Finding]:
    if (seconds := listed.train.seconds) < FEW_SECONDS:
        yield Finding(
            "few_hours",
            f"training has only {say_time(seconds)} of speech: an encoder learns so few clips by "
            f"heart",
            "set train_csv: to more speech, or continue a public model (recipes/OwnSpeech)",
        )


def _unusable(listed: Listed) -> Iterator[Finding]:
    if not listed.preparation:
        return
    left_out, counts = listed.preparation.left_out, listed.preparation.counts
    number = len(left_out) + sum(found.clips for found in counts.values())
    if len(left_out) >= UNUSABLE * number:
        wav, reason = left_out[0]
        yield Finding(
            "unusable_files",
            f"{len(left_out):,} of {say_count(number, 'file')} or clips cannot be used "
            f"({say_percent(len(left_out) / number)}), the first is {wav}: {reason}",
            "mend those that left_out.csv in manifest_folder: lists",
        )


def _long_clips(listed: Listed, hparams: Mapping[str, Any]) -> Iterator[Finding]:
    lengths = lengths_of(listed.train.selection.seconds_N)
    limit = hparams["batch_seconds"] if hparams["batch_clips"] is None else math.inf
    is_far_longer = lengths.longest >= max(LONG, FAR_LONGER * lengths.below_95)
    if is_far_longer or lengths.longest > limit:
        clip = [*listed.train.clips][int(listed.train.selection.seconds_N.argmax())]
        than = (
            f"95 % of the clips are below {say_time(lengths.below_95)}"
            if is_far_longer
            else f"batch_seconds: is {limit:g}"
        )
        yield Finding(
            "long_clip",
            f"the clip {clip!r} lasts {say_time(lengths.longest)} where {than}: its batch decides "
            f"how much memory the run needs",
            f"set max_seconds: {math.ceil(min(1.5 * lengths.below_95, limit))}, or cut the clip",
        )
    wav, seconds, median = largest_file(listed.train)
    share = seconds / listed.train.seconds
    if share >= ONE_FILE and seconds >= FAR_LARGER * median and not is_far_longer:
        yield Finding(
            "one_file",
            f"{say_percent(share)} of training ({say_time(seconds)}) are parts of one file, {wav}, "
            f"where the median file has {say_time(median)}",
            "take some of its parts out of train_csv:, or add other recordings",
        )


def _short_clips(listed: Listed) -> Iterator[Finding]:
    median = lengths_of(listed.train.selection.seconds_N).median
    if median < SHORT:
        yield Finding(
            "short_clips",
            f"half of the training clips are shorter than {say_time(median)}: there is little "
            f"around a masked span from which it can be predicted",
            "join clips that follow each other, or set min_seconds: 1.0 if enough is left",
        )


def _speakers(listed: Listed) -> Iterator[Finding]:
    train = speakers_of(listed.train.selection)
    if train.number == 1 and not train.unknown_clips:
        yield Finding(
            "one_speaker",
            f"all training clips are of one speaker, {train.largest!r}: the encoder and its codes "
            f"will know this voice only",
            "add other speakers to train_csv:",
        )
    elif train.number > 1 and train.largest_share >= LARGE_SPEAKER:
        yield Finding(
            "largest_speaker",
            f"{say_percent(train.largest_share)} of training are of one of its {train.number} "
            f"speakers, {train.largest!r}",
            "add other speakers to train_csv:, or take some clips of this one out",
        )
    if listed.valid and train.number > 1:
        number = speakers_of(listed.valid.selection).number
        shared = shared_speakers(listed.train.selection, listed.valid.selection)
        if shared and 2 * shared >= number:
            yield Finding(
                "shared_speakers",
                f"{shared} of {say_count(number, 'speaker')} of the validation are in training: "
                f"its loss does not show how the model does with new speakers",
                "keep all clips of some speakers for valid_csv:",
            )


def _padding(listed: Listed, hparams: Mapping[str, Any]) -> Iterator[Finding]:
    if listed.padding >= MUCH_PADDING and listed.batches >= FEW_BATCHES:
        if hparams["batch_clips"] is not None:
            remedy = "set batch_clips: null and batch_seconds:, for batches of similar lengths"
        else:
            buckets, padding = better_buckets(listed.train.selection.seconds_N, hparams)
            remedy = (
                f"set num_buckets: {buckets}, which leaves {say_percent(padding)}"
                if padding < listed.padding / 2
                else "set batch_seconds: lower, with more grad_accumulation_factor:"
            )
        yield Finding(
            "padding",
            f"{say_percent(listed.padding)} of the seconds in batches are padding, which takes "
            f"time and memory",
            remedy,
        )
