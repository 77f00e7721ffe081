"""Your own speech is split into training and validation."""

import collections
import math
from collections.abc import Callable

from speechbrain.utils.logger import get_logger

from .clips import Clip, digest

logger = get_logger(__name__)


def divide(
    clips: list[Clip], valid_share: float, seed: int, source: str
) -> tuple[list[Clip], list[Clip]]:
    """Splits clips into training and validation, by whole speakers or whole files.

    Speakers, or files, are sorted by a hash of their names and the seed. Validation takes the first
    of them until it has its share of the seconds. So adding more files later moves only a few of
    the others. A speaker or file that would make validation far too large is skipped.

    ``valid_share`` is the share of the seconds for validation, at most a half; ``source`` is for
    messages. A ValueError is raised if there is only one file.

    Example
    -------
    >>> from brainquant.data.own_speech.clips import Clip
    >>> clips = [Clip(name, name, name, seconds=10.0) for name in "abcd"]
    >>> train, valid = divide(clips, 0.2, 1, "a folder")
    >>> len(train), len(valid)
    (3, 1)
    """
    unit, group = "speakers", _speaker_of
    seconds = _seconds_by(group, clips)
    if len(seconds) < 2 or not any(clip.speaker for clip in clips):
        unit, group = "files", _file_of
        seconds = _seconds_by(group, clips)
    if len(seconds) < 2:
        raise ValueError(
            f"source must have at least two files to be split, {source} has one; set valid_source: "
            f"to audio for validation"
        )
    chosen = _choose(seconds, valid_share, seed)
    share = math.fsum(seconds[name] for name in chosen) / math.fsum(seconds.values())
    logger.info(
        f"validation takes {len(chosen)} of {len(seconds)} {unit}, {100 * share:.1f} % of the "
        f"seconds (valid_share: {valid_share:g}, of whole {unit})"
    )
    train: list[Clip] = []
    valid: list[Clip] = []
    for clip in clips:
        (valid if group(clip) in chosen else train).append(clip)
    return train, valid


def _speaker_of(clip: Clip) -> str:
    return clip.speaker or clip.name


def _file_of(clip: Clip) -> str:
    return clip.name


def _seconds_by(group: Callable[[Clip], str], clips: list[Clip]) -> dict[str, float]:
    """The seconds of each group. They are the same in any order of the clips."""
    parts = collections.defaultdict(list)
    for clip in clips:
        parts[group(clip)].append(clip.seconds)
    return {name: math.fsum(values) for name, values in parts.items()}


def without_overlap(
    train: list[tuple[Clip, int, int]], valid: list[tuple[Clip, int, int]]
) -> list[tuple[Clip, int, int]]:
    """The training clips that share no sample with a validation clip.

    Each clip comes with its first sample and the one after its last.

    Example
    -------
    >>> from brainquant.data.own_speech.clips import Clip
    >>> clip = Clip("a", "a.wav", "a.wav")
    >>> without_overlap([(clip, 0, 100), (clip, 100, 200)], [(clip, 150, 160)]) == [(clip, 0, 100)]
    True
    """
    parts = collections.defaultdict(list)
    for clip, start, stop in valid:
        parts[clip.wav].append((start, stop, clip.channel))

    def overlaps(clip: Clip, start: int, stop: int) -> bool:
        return any(
            start < last
            and first < stop
            and (None in (channel, clip.channel) or channel == clip.channel)
            for first, last, channel in parts[clip.wav]
        )

    return [found for found in train if not overlaps(*found)]


def _choose(seconds: dict[str, float], share: float, seed: int) -> set[str]:
    """The names that have a share of the seconds, but never more than half of them.

    Example
    -------
    >>> _choose({"long": 500.0, "short": 10.0}, 0.05, 1)
    {'short'}
    """
    total = math.fsum(seconds.values())
    wanted = share * total
    # The shortest of two or more has at most half, so at least one is chosen.
    most = min(total / 2, 2 * max(wanted, min(seconds.values())))
    chosen, sum_chosen = set(), 0.0
    for name in sorted(seconds, key=lambda name: digest(seed, name)):
        if sum_chosen < wanted and sum_chosen + seconds[name] <= most:
            chosen.add(name)
            sum_chosen += seconds[name]
    return chosen
