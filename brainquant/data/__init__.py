"""Corpora: one way to build datasets and loaders, one prepare_<corpus> per corpus."""

from ..functional.imports import check_torchaudio

check_torchaudio()
