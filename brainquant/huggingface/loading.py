"""Builds models of transformers, with the weights of a folder or without."""

from __future__ import annotations

from typing import Any

import torch

from .checks import (
    MASK_VECTOR,
    check_config,
    check_content,
    check_files,
    check_weights,
    one_line_without_warnings,
)
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
    """A model of transformers in float32, with dropout as its config has it.

    It has a vector for masked frames, whatever masks its config asks for. If its file has none, as
    after some fine-tunings, the vector is drawn from the global generator, as transformers does.

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
    config = read_config(source)
    kind = config.model_type
    if pretraining and kind != "wav2vec2":
        raise ValueError(
            f"model: {source.folder} is a {kind} model, which has no quantiser of wav2vec 2.0; "
            f"continue it with continue_masked.yaml"
        )
    model_class = getattr(transformers, PRETRAINING if pretraining else ENCODERS[kind])
    check_config(config, source.folder, pretraining)
    mask_time_prob = config.mask_time_prob
    config.mask_time_prob = mask_time_prob or 0.05  # above 0, so that there is a vector
    with torch.random.fork_rng(devices=[]):  # a run draws the same with weights and without
        if not weights:
            with one_line_without_warnings(source.folder):
                model = model_class(config).train()
            config.mask_time_prob = mask_time_prob
            return model
        held: dict[str, Any] = {}
        if source.state is None:
            check_files(source.folder)
        else:
            held["state_dict"] = dict(source.state)
        with one_line_without_warnings(source.folder):
            model, found = model_class.from_pretrained(
                None if held else source.folder,
                config=config,
                local_files_only=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **held,
            )
    model.config.mask_time_prob = mask_time_prob
    if MASK_VECTOR in found["missing_keys"]:
        with torch.random.fork_rng(devices=[]):  # transformers 5.0 leaves it as the memory was
            torch.nn.init.uniform_(model.masked_spec_embed)
    check_weights(model, found, source.folder, pretraining)
    return model.train()


def read_config(source: Source) -> Any:
    """The config of a model, with transformers' defaults; a ValueError if it is of another type."""
    kind = source.config.get("model_type")
    if not isinstance(kind, str):
        raise ValueError(
            f"model: the config.json in {source.folder} names no model_type, so it is no model of "
            f"transformers; to go on from a run of brainquant, use begin_from:"
        )
    if not isinstance(kind, str) or kind not in ENCODERS:
        raise ValueError(
            f"model: {source.folder} is a model of the type {kind!s:.50}, which cannot be "
            f"continued; give one of the types {', '.join(ENCODERS)}"
        )
    check_content(source.config, source.folder)
    # Some, such as wav2vec2-base, ask for what activation_checkpointing: decides here.
    content = {key: v for key, v in source.config.items() if key != "gradient_checkpointing"}
    config_class = getattr(import_transformers(), ENCODERS[kind]).config_class
    with one_line_without_warnings(source.folder):
        return config_class.from_dict(content)
