"""What of speech of one's own cannot be used, written down with the reasons."""

import os

from speechbrain.utils.logger import get_logger

from ..prepare import to_csv, write_whole

logger = get_logger(__name__)

NUM_SHOWN = 3  # files in a message


class LeftOut:
    """The list ``left_out.csv``, with the columns wav and reason.

    Arguments
    ---------
    folder : str
        Where it is written.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> LeftOut(folder).add([("a.wav", "has no samples")])
    >>> (folder / "left_out.csv").read_text()
    'wav,reason\\na.wav,has no samples\\n'
    """

    name = "left_out.csv"

    def __init__(self, folder):
        self.path = os.path.join(folder, self.name)
        self._rows = {("wav", "reason"): None}  # in order, each once

    def add(self, faults):
        """Writes down paths with the reasons why they cannot be used."""
        self._rows |= dict.fromkeys((_show(wav), reason) for wav, reason in faults)
        write_whole(self.path, to_csv(self._rows))

    def refuse_half(self, faults, number, what, remedy):
        """An error where more than half of so many things cannot be used, a warning of fewer.

        Arguments
        ---------
        faults : list of (str, str)
            Paths and reasons, which are written down already.
        number : int
        what : str
            What there are so many of.
        remedy : str
        """
        if not faults:
            return
        shown = "; ".join(f"{_show(wav)} {reason}" for wav, reason in faults[:NUM_SHOWN])
        text = f"{len(faults)} of {number} {what} cannot be used: {shown}"
        text += "; ..." if len(faults) > NUM_SHOWN else ""
        if 2 * len(faults) > number:
            raise ValueError(f"{text}; {remedy}")
        logger.warning(f"{text}; they are left out and listed in {self.name}")


def _show(wav):
    """A path on one line, of characters that can be written."""
    wav = wav.replace("\r", "\\r").replace("\n", "\\n")
    return wav.encode("utf-8", "backslashreplace").decode()
