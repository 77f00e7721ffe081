"""What is probed: an encoder, its codes, and the same encoder before it was trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from speechbrain.utils import seed_everything

from ..inference import load_pretrained
from ..inference.loading import quantiser_of
from ..models import SpeechEncoder
from ..recipe import load_encoder
from .frozen import untrained


class Subject(NamedTuple):
    """An encoder that is probed."""

    encoder: SpeechEncoder
    quantiser: Any  # its codes are measured beside phones; None: it has none
    make_untrained: Callable[[int], SpeechEncoder]  # of a seed
    without_bars: bool  # whether no progress is shown


def subject_of_run(brain: Any, hparams: Mapping[str, Any]) -> Subject:
    """The encoder and the quantiser of a run, after training."""
    encoder = brain.raw("encoder")
    return Subject(
        encoder,
        quantiser_of(brain),
        partial(untrained, encoder, dict(hparams)),
        brain.noprogressbar,
    )


def subject_of_model(source: str, device: str = "cpu") -> Subject:
    """The encoder of an exported folder, of a folder of transformers, or of a Hub id."""
    model = load_pretrained(source, device=device)

    def make_untrained(seed: int) -> SpeechEncoder:
        seed_everything(seed)
        return load_encoder(source, from_scratch=True).to(device).eval()

    return Subject(model.encoder, model.quantiser, make_untrained, False)
