"""Parquet: a table with a row for each clip, for pyarrow, pandas and Hugging Face's datasets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from .files import Writer, as_durations, as_units
from .libraries import import_pyarrow

if TYPE_CHECKING:
    from ..clips import Clip

# What is kept until it is written, as a row group
GROUP_BYTES = 16 * 2**20
GROUP_ROWS = 4096


class ParquetWriter(Writer):
    """Writes the columns ``id`` and ``hidden``, or ``id``, ``units`` and ``durations``.

    A cell of ``hidden`` is a list of frames, and a frame a list of numbers; pooled features are a
    single list. Units of several codebooks are a list of frames, too.

    Example
    -------
    >>> import pyarrow.parquet
    >>> from brainquant.extraction.clips import Clip
    >>> path = str(getfixture("tmp_path") / "units.parquet")
    >>> writer = ParquetWriter(path, {"kind": "tokens"})
    >>> writer.add(Clip("a", "a.wav", 16000, 16000), np.array([7, 3]), durations=np.array([1, 4]))
    >>> writer.close()
    >>> pyarrow.parquet.read_table(path).to_pylist()
    [{'id': 'a', 'units': [7, 3], 'durations': [1, 4]}]
    """

    endings = (".parquet",)

    def __init__(self, path: str, meta: dict[str, Any]) -> None:
        self._arrow: Any = import_pyarrow()
        super().__init__(path, meta)
        self._file = self.open(path, "wb")
        self._table: Any = None  # opened with the types of the first arrays
        self._ids: list[str] = []
        self._arrays: list[np.ndarray] = []
        self._durations: list[np.ndarray] = []
        self._num_bytes = self._num_groups = 0

    @classmethod
    @override
    def check(cls, path: str, meta: dict[str, Any], clips: Iterable[Clip] = ()) -> None:
        import_pyarrow()

    @override
    def add(self, clip: Clip, array: np.ndarray, durations: np.ndarray | None = None) -> None:
        # A copy: the array may be a part of a batch.
        array = array.copy() if self.meta["kind"] == "encode" else as_units(array)
        self._ids.append(clip.id)
        self._arrays.append(array)
        self._durations.append(as_durations(durations, len(array)))
        self._num_bytes += array.nbytes + self._durations[-1].nbytes
        if self._num_bytes >= GROUP_BYTES or len(self._ids) == GROUP_ROWS:
            self._write_rows()

    @override
    def finish(self) -> None:
        if self._ids or not self._num_groups:
            self._write_rows()
        self._table.close()

    def _write_rows(self) -> None:
        """Writes the rows that were kept as a row group."""
        columns = {"id": self._arrow.array(self._ids, self._arrow.string())}
        if self.meta["kind"] == "encode":
            columns["hidden"] = self._lists(self._arrays, np.float32)
        else:
            columns["units"] = self._lists(self._arrays, np.int32)
            columns["durations"] = self._lists(self._durations, np.int32)
        group = self._arrow.table(columns)
        if not self._num_groups:
            # A dictionary saves nothing for features: their values seldom repeat.
            self._table = self._arrow.parquet.ParquetWriter(
                self._file, group.schema, use_dictionary=self.meta["kind"] == "tokens"
            )
        self._table.write_table(group, row_group_size=max(1, len(group)))
        self._num_groups += 1
        self._ids, self._arrays, self._durations, self._num_bytes = [], [], [], 0

    def _lists(self, arrays: list[np.ndarray], dtype: Any) -> Any:
        """A column of arrays of one or two axes, without a copy for each number."""
        arrow = self._arrow
        lengths = [len(array) for array in arrays]
        values: Any = np.concatenate(arrays) if arrays else np.zeros(0, dtype)
        column = arrow.array(values.reshape(-1))
        if values.ndim == 2:
            starts = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
            column = arrow.ListArray.from_arrays(starts, column)
        starts = np.cumsum([0, *lengths], dtype=np.int32)
        return arrow.ListArray.from_arrays(starts, column)
