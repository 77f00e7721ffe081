"""Which clips make a batch, and which batches a part: the same for any number of processes."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Sequence

from ..inference.long_audio import WHOLE_SECONDS
from .clips import Clip

# A part is written at once. A process that is killed loses the part that it works on.
PART_SECONDS = 1800  # of speech in a part, at most
PART_BYTES = 2**24  # of results in a part, at most
NUM_PARTS = 256  # of a corpus, at least: fewer only if it has fewer batches


@dataclasses.dataclass(frozen=True)
class Plan:
    """The batches of a corpus, the longest clips first.

    Arguments
    ---------
    clips : sequence of Clip
        The corpus, in its order.
    batches : list
        Each has the numbers of its clips.
    parts : list
        Each has the numbers of its batches.
    """

    clips: Sequence[Clip]
    batches: list[list[int]]
    parts: list[range]

    def digest(self) -> str:
        """A hash of all clips and of how they are divided."""
        text = repr((list(map(dataclasses.astuple, self.clips)), self.batches, self.parts))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def clips_of(self, part: int) -> list[int]:
        """The numbers of the clips of a part."""
        return [clip for batch in self.parts[part] for clip in self.batches[batch]]

    def seconds_of(self, parts: Iterable[int]) -> float:
        """Seconds of speech in parts."""
        return sum(self.clips[clip].seconds for part in parts for clip in self.clips_of(part))


def make_plan(clips: Sequence[Clip], batch_seconds: float, bytes_per_second: float) -> Plan:
    """Divides clips into batches of similar lengths, and batches into parts.

    Arguments
    ---------
    clips : sequence of Clip
        The corpus.
    batch_seconds : float
        Seconds of a batch with its padding, at most. A longer clip is a batch of its own, and so is
        one that is encoded in windows.
    bytes_per_second : float
        Size of the results of a second of speech.

    Example
    -------
    >>> seconds = [1, 9, 2, 4]
    >>> clips = [Clip(str(n), "", 8000 * n, 8000) for n in seconds]
    >>> plan = make_plan(clips, batch_seconds=8, bytes_per_second=1)
    >>> plan.batches, plan.parts
    ([[1], [3, 2], [0]], [range(0, 1), range(1, 2), range(2, 3)])
    """
    order = sorted(range(len(clips)), key=lambda number: (-clips[number].seconds, number))
    batches: list[list[int]] = []
    for number in order:
        batch = batches[-1] if batches else []
        longest = clips[batch[0]].seconds if batch else math.inf
        if longest <= WHOLE_SECONDS and (len(batch) + 1) * longest <= batch_seconds:
            batch.append(number)
        else:
            batches.append([number])
    most = min(
        PART_SECONDS,
        PART_BYTES / bytes_per_second,
        sum(clip.seconds for clip in clips) / NUM_PARTS,
    )
    parts: list[range] = []
    seconds = 0.0
    for number, batch in enumerate(batches):
        added = sum(clips[clip].seconds for clip in batch)
        if parts and seconds + added <= most:
            parts[-1] = range(parts[-1].start, number + 1)
            seconds += added
        else:
            parts.append(range(number, number + 1))
            seconds = added
    return Plan(clips, batches, parts)
