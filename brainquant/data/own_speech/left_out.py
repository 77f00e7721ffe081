"""The list of the files and clips of your own speech that cannot be used, with the reasons."""

import os
from collections.abc import Iterable

from speechbrain.utils.logger import get_logger

from ..prepare import to_csv, write_whole
from ..tables import first_few

logger = get_logger(__name__)


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
