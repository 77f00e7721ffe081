"""What the preparation of your own speech leaves out: clips and files with reasons, and counts."""

import csv
import json
import os
from collections.abc import Iterable
from typing import NamedTuple

from speechbrain.utils.logger import get_logger

from ..prepare import to_csv, write_whole
from ..tables import first_few

logger = get_logger(__name__)

COUNTS = "counts.json"


class Counts(NamedTuple):
    """What became of the clips of a source that can be read."""

    clips: int
    long: int  # clips above max_seconds, which are cut
    short: int  # clips and parts of clips below min_seconds, which are left out
    short_seconds: float


class Preparation(NamedTuple):
    """What a preparation says about its manifests.

    Attributes
    ----------
    counts : dict of str to Counts
        By source: ``train`` and, if it has a source of its own, ``valid``.
    left_out : list of tuple of str
        The path and the reason of each file and clip that cannot be used.
    """

    counts: dict[str, Counts]
    left_out: list[tuple[str, str]]


class LeftOutList:
    """The file ``left_out.csv`` in a folder, with the columns wav and reason.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> LeftOutList(folder).add([("a.wav", "has no samples")])
    >>> (folder / "left_out.csv").read_text()
    'wav,reason\\na.wav,has no samples\\n'
    """

    name = "left_out.csv"

    def __init__(self, folder: str | os.PathLike):
        self.path = os.path.join(folder, self.name)
        self._rows = {("wav", "reason"): None}  # in order, each once

    def add(self, faults: Iterable[tuple[str, str]]) -> None:
        """Adds paths and the reasons why they cannot be used."""
        self._rows |= dict.fromkeys((on_one_line(wav), reason) for wav, reason in faults)
        write_whole(self.path, to_csv(self._rows))

    def refuse_half(
        self, faults: list[tuple[str, str]], number: int, what: str, remedy: str
    ) -> None:
        """Adds faults; raises a ValueError if they are more than half of ``number``, or warns.

        ``what`` says what the number counts, ``remedy`` what to do.
        """
        self.add(faults)
        if not faults:
            return
        shown = first_few([f"{on_one_line(wav)} {reason}" for wav, reason in faults])
        text = f"{len(faults)} of {number} {what} cannot be used: {shown}"
        if 2 * len(faults) > number:
            raise ValueError(f"{text}; {remedy}")
        logger.warning(f"{text}; they are left out and listed in {self.name}")


def on_one_line(wav: str) -> str:
    """A path without line breaks, in characters that UTF-8 has.

    Example
    -------
    >>> on_one_line("a\\nb.wav")
    'a\\\\nb.wav'
    """
    wav = wav.replace("\r", "\\r").replace("\n", "\\n")
    return wav.encode("utf-8", "backslashreplace").decode()


def write_counts(folder: str | os.PathLike, counts: dict[str, Counts]) -> None:
    """Writes the counts of a preparation beside its manifests."""
    text = json.dumps({part: found._asdict() for part, found in counts.items()}, indent=2)
    write_whole(os.path.join(folder, COUNTS), text + "\n")


def read_preparation(folder: str | os.PathLike) -> Preparation | None:
    """What a preparation of your own speech has left in the folder of its manifests.

    Returns None if the folder has no counts: it is another corpus's, or of an older version.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> LeftOutList(folder).add([("a.wav", "has no samples")])
    >>> write_counts(folder, {"train": Counts(clips=9, long=1, short=2, short_seconds=0.6)})
    >>> found = read_preparation(folder)
    >>> found.left_out, found.counts["train"].short
    ([('a.wav', 'has no samples')], 2)
    """
    try:
        with open(os.path.join(folder, COUNTS), encoding="utf-8") as file:
            counts = {part: Counts(**found) for part, found in json.load(file).items()}
        with open(os.path.join(folder, LeftOutList.name), encoding="utf-8", newline="") as file:
            _, *rows = csv.reader(file)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return Preparation(counts, [(wav, reason) for wav, reason in rows])
