"""JSON lines: one object for each clip."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from .files import Writer, as_durations, as_units

if TYPE_CHECKING:
    from ..clips import Clip


class JsonLinesWriter(Writer):
    """Writes ``id``, ``units`` and ``durations`` of each clip; several codebooks as lists of lists.

    Example
    -------
    >>> from brainquant.extraction.clips import Clip
    >>> path = getfixture("tmp_path") / "units.jsonl"
    >>> writer = JsonLinesWriter(str(path), {"kind": "tokens"})
    >>> writer.add(Clip("a", "a.wav", 16000, 16000), np.array([7, 3]), durations=np.array([1, 4]))
    >>> writer.close()
    >>> path.read_text()
    '{"id": "a", "units": [7, 3], "durations": [1, 4]}\\n'
    """

    endings = (".jsonl",)

    def __init__(self, path: str, meta: dict[str, Any]) -> None:
        super().__init__(path, meta)
        self._lines = self.open(path, "w")

    @override
    def add(self, clip: Clip, array: np.ndarray, durations: np.ndarray | None = None) -> None:
        units = as_units(array).tolist()
        frames = as_durations(durations, len(units)).tolist()
        row = {"id": clip.id, "units": units, "durations": frames}
        self._lines.write(json.dumps(row, ensure_ascii=False) + "\n")
