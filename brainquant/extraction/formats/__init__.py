"""Writers of features and units, one for each format that other tools read."""

from __future__ import annotations

from .fairseq import KmWriter, NpyWriter
from .files import Writer
from .json_lines import JsonLinesWriter
from .kaldi import KaldiWriter
from .numpy_zip import NpzWriter
from .parquet import ParquetWriter

# By command, then by the value of its --format
FORMATS: dict[str, dict[str, type[Writer]]] = {
    "encode": {
        "npz": NpzWriter,
        "npy": NpyWriter,
        "kaldi": KaldiWriter,
        "parquet": ParquetWriter,
    },
    "tokens": {
        "km": KmWriter,
        "jsonl": JsonLinesWriter,
        "kaldi": KaldiWriter,
        "parquet": ParquetWriter,
        "npz": NpzWriter,
    },
}

__all__ = ["FORMATS", "Writer"]
