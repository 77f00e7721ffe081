"""What a run logs about itself: code counts, health, tallies, log files and the report."""

from ..functional.imports import check_torchaudio

check_torchaudio()
