"""A model of transformers as a ``PretrainedEncoder``."""

from __future__ import annotations

from ..huggingface.continuing import load_encoder, load_wav2vec2
from ..huggingface.describing import describe_held
from ..huggingface.loading import PRETRAINING
from ..huggingface.source import find_model
from .pretrained import PretrainedEncoder

TEMPERATURES = 0.5, 0.5, 1.0  # of a training; the codes do not depend on them


def open_held(model: str) -> PretrainedEncoder:
    """The encoder of a model of transformers, with its quantiser if there is one.

    Nothing is executed: transformers reads ``config.json`` and tensors, and builds classes of its
    own.

    Arguments
    ---------
    model : str
        A folder that ``brainquant export --format transformers`` has written, or
        ``save_pretrained``; or a ``.pt`` file of fairseq.

    Raises
    ------
    ValueError
        If it is of another kind of model, or if a weight is missing or not finite. It is one line.
    ImportError
        If transformers is not installed.
    """
    quantiser = None
    if PRETRAINING in str(find_model(model).config.get("architectures")):
        encoder, quantiser, *_ = load_wav2vec2(model, temp_tuple=TEMPERATURES)
    else:
        encoder = load_encoder(model)
    return PretrainedEncoder(encoder, quantiser, description=describe_held(encoder, quantiser))
