"""Evaluates an encoder by its frozen layers, and codes by the phones that they stand for."""

from ..monitoring.spectrum import effective_rank
from .abx import abx_errors, spoken_phones
from .after_training import probe
from .code_phones import code_phone_statistics
from .linear_probe import majority_accuracy, probe_layers, summarise, windows
from .table import format_table

__all__ = [
    "abx_errors",
    "code_phone_statistics",
    "effective_rank",
    "format_table",
    "majority_accuracy",
    "probe",
    "probe_layers",
    "spoken_phones",
    "summarise",
    "windows",
]
