"""Builds models of transformers, with the weights of a folder or without."""

from __future__ import annotations

from typing import Any

import torch

from .library import import_transformers
from .source import Source

# The encoder that is held for each model_type of a config.json
ENCODERS = {
    "data2vec-audio": "Data2VecAudioModel",
    "hubert": "HubertModel",
    "wav2vec2": "Wav2Vec2Model",
    "wav2vec2-bert": "Wav2Vec2BertModel",
    "wavlm": "WavLMModel",
}
PRETRAINING = "Wav2Vec2ForPreTraining"


def load_model(source: Source, *, pretraining: bool = False, weights: bool = True) -> Any:
    """A model of transformers in float32, with dropout and masks as its config has them.

    Arguments
    ---------
    source : Source
        The folder. Nothing in it is executed.
    pretraining : bool
        Whether the model is a ``Wav2Vec2ForPreTraining``; if not, the encoder of any of the
        architectures in ``ENCODERS``, without heads.
    weights : bool
        False leaves the parameters random, because a checkpoint will have them.

    Returns
    -------
    model : transformers.PreTrainedModel

    Raises
    ------
    ValueError
        If the model is of another architecture, if a weight is missing or not finite, or if the
        model was fine-tuned and its quantiser is gone.
    """
    transformers = import_transformers()
    kind = source.config.get("model_type")
    if kind not in ENCODERS:
        raise ValueError(
            f"model: {source.folder} is a model of the type {kind!s:.50}, which has no place here; "
            f"give one of the types {', '.join(ENCODERS)}"
        )
    if pretraining and kind != "wav2vec2":
        raise ValueError(
            f"model: {source.folder} is a {kind} model, which has no quantiser of wav2vec 2.0; "
            f"continue it with continue_masked.yaml"
        )
    model_class = getattr(transformers, PRETRAINING if pretraining else ENCODERS[kind])
    with torch.random.fork_rng(devices=[]):  # a run draws the same with weights and without
        if not weights:
            return model_class(model_class.config_class.from_dict(source.config)).train()
        try:
            model, found = model_class.from_pretrained(
                source.folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"model: {source.folder} cannot be loaded ({' '.join(str(error).split())[:300]}); "
                f"download it again"
            ) from error
    _check_weights(model, found, source, pretraining)
    return model.train()


def _check_weights(model: Any, found: Any, source: Source, pretraining: bool) -> None:
    """Raises a ValueError if transformers has drawn a weight anew, or one is not finite."""
    missing = sorted(found["missing_keys"])
    if pretraining and any(name.startswith("quantizer.") for name in missing):
        raise ValueError(
            f"model: {source.folder} has no quantiser, as after fine-tuning, so wav2vec 2.0 would "
            f"begin with new codes; continue it with continue_masked.yaml"
        )
    if missing:
        raise ValueError(
            f"model: {source.folder} lacks {len(missing)} of the weights of "
            f"{type(model).__name__}, such as {missing[0]}; download it again"
        )
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(
                f"model: {name} in {source.folder} has NaN or infinite values; the model is broken"
            )
