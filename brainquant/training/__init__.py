"""What a run needs around its model: options that hold, randomness that can be repeated."""

from ..functional.imports import check_torchaudio

check_torchaudio()
