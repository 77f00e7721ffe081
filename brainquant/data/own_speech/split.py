"""Speech of one's own is divided into training and validation."""

import collections
import math

from speechbrain.utils.logger import get_logger

from .clips import digest

logger = get_logger(__name__)


def divide(clips, valid_share, seed, source):
    """Parts for training and validation, of whole speakers or whole files.

    Speakers, or files, are put in an order by their names and the seed. Validation takes the first
    of them, until it has its share of the seconds: adding more later moves only a few of the
    others. One that would make it far too large is passed over.

    Arguments
    ---------
    clips : list of Clip
    valid_share : float
        Of the seconds, at most a half.
    seed : int
    source : str
        For messages.

    Returns
    -------
    train, valid : list of Clip

    Raises
    ------
    ValueError
        Where there is only one file.

    Example
    -------
    >>> from brainquant.data.own_speech.clips import Clip
    >>> clips = [Clip(name, name, name, seconds=10.0) for name in "abcd"]
    >>> train, valid = divide(clips, 0.2, 1, "a folder")
    >>> len(train), len(valid)
    (3, 1)
    """
    for unit, group in (
        ("speakers", lambda clip: clip.speaker or clip.name),
        ("files", lambda clip: clip.name),
    ):
        parts = collections.defaultdict(list)
        for clip in clips:
            parts[group(clip)].append(clip.seconds)
        # fsum: the same in any order
        seconds = {name: math.fsum(values) for name, values in parts.items()}
        if len(seconds) > 1 and (unit == "files" or any(clip.speaker for clip in clips)):
            break
    else:
        raise ValueError(
            f"source must have at least two files to be split, {source} has one; set valid_source: "
            f"to audio for validation"
        )
    valid = _choose(seconds, valid_share, seed)
    taken = math.fsum(seconds[name] for name in valid) / math.fsum(seconds.values())
    logger.info(
        f"validation takes {len(valid)} of {len(seconds)} {unit}, {100 * taken:.1f} % of the "
        f"seconds (valid_share: {valid_share:g}, of whole {unit})"
    )
    return (
        [clip for clip in clips if group(clip) not in valid],
        [clip for clip in clips if group(clip) in valid],
    )


def without_overlap(train, valid):
    """Training clips that share no sample with a validation clip.

    Arguments
    ---------
    train, valid : list of (Clip, int, int)
        With the first sample and the one after the last.

    Returns
    -------
    list of (Clip, int, int)

    Example
    -------
    >>> from brainquant.data.own_speech.clips import Clip
    >>> clip = Clip("a", "a.wav", "a.wav")
    >>> without_overlap([(clip, 0, 100), (clip, 100, 200)], [(clip, 150, 160)]) == [(clip, 0, 100)]
    True
    """
    taken = collections.defaultdict(list)
    for clip, start, stop in valid:
        taken[clip.wav].append((start, stop, clip.channel))

    def is_taken(clip, start, stop):
        return any(
            start < last
            and first < stop
            and (None in (channel, clip.channel) or channel == clip.channel)
            for first, last, channel in taken[clip.wav]
        )

    return [placed for placed in train if not is_taken(*placed)]


def _choose(seconds, share, seed):
    """The names that make a share of the seconds; never more than half of them.

    Example
    -------
    >>> _choose({"long": 500.0, "short": 10.0}, 0.05, 1)
    {'short'}
    """
    total = math.fsum(seconds.values())
    wanted = share * total
    # The shortest of two or more has at most half, so at least one is taken.
    most = min(total / 2, 2 * max(wanted, min(seconds.values())))
    chosen, taken = set(), 0.0
    for name in sorted(seconds, key=lambda name: digest(seed, name)):
        if taken < wanted and taken + seconds[name] <= most:
            chosen.add(name)
            taken += seconds[name]
    return chosen
