"""A folder of transformers of our modules: the way back."""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from safetensors.torch import save_file

from .bert_encoder import W2vBertEncoder
from .encoder import HuggingFaceEncoder
from .filterbanks import STACK
from .library import import_transformers
from .loading import PRETRAINING
from .source import CONFIG

WEIGHTS = "model.safetensors"
NOT_OF_THE_ENCODER = ("id2label", "label2id", "problem_type")  # of a head that is gone


def save_folder(
    folder: str,
    encoder: HuggingFaceEncoder | W2vBertEncoder,
    quantiser: torch.nn.Module | None = None,
    target_proj: torch.nn.Module | None = None,
    context_proj: torch.nn.Module | None = None,
) -> str:
    """Writes what ``from_pretrained`` of transformers loads.

    The folder gets ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``. The
    config has the keys that transformers knows, and no others: a name or path that somebody has
    put into the config of the public model is not passed on.

    Arguments
    ---------
    folder : str
        Exists.
    encoder : HuggingFaceEncoder or W2vBertEncoder
        With its weights.
    quantiser, target_proj, context_proj : torch.nn.Module or None
        The heads of a ``Wav2Vec2Brain``: with them it is a ``Wav2Vec2ForPreTraining``.

    Returns
    -------
    class_name : str
        The class of transformers that has exactly these weights.
    """
    held = encoder.model
    tensors = dict(held.state_dict())
    model_class = type(held)
    if quantiser is not None and target_proj is not None and context_proj is not None:
        tensors = {f"{held.base_model_prefix}.{name}": t for name, t in tensors.items()}
        tensors |= _heads(quantiser, target_proj, context_proj)
        model_class = getattr(import_transformers(), PRETRAINING)
    config = _clean(held.config, model_class)
    _check_names(model_class, config, tensors)
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    save_file(tensors, os.path.join(folder, WEIGHTS), {"format": "pt"})
    config.save_pretrained(folder)
    _preprocessor(encoder).save_pretrained(folder)
    return model_class.__name__


def _heads(
    quantiser: torch.nn.Module, target_proj: torch.nn.Module, context_proj: torch.nn.Module
) -> dict[str, torch.Tensor]:
    """The tensors of the heads under transformers' names; ``max_ent`` is computed there."""
    heads = {"quantizer": quantiser, "project_q": target_proj, "project_hid": context_proj}
    tensors = {
        f"{name}.{key}": tensor
        for name, module in heads.items()
        for key, tensor in module.state_dict().items()
    }
    del tensors["quantizer.max_ent"]
    tensors["quantizer.codevectors"] = tensors.pop("quantizer.vars")
    return tensors


def _clean(config: Any, model_class: type) -> Any:
    """A config of the keys that its class knows, for weights of a class."""
    known = type(config)().to_dict().keys() - {*NOT_OF_THE_ENCODER, "_name_or_path"}
    values = {key: value for key, value in config.to_dict().items() if key in known}
    cleaned = type(config).from_dict(values)
    cleaned.architectures = [model_class.__name__]
    cleaned.dtype = "float32"
    return cleaned


def _check_names(model_class: type, config: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Raises a ValueError unless the tensors are those of a model of this class and config."""
    config = type(config).from_dict(config.to_dict())
    config.mask_time_prob = config.mask_time_prob or 0.05  # we hold a vector for masked frames
    with torch.device("meta"):
        expected = {n: t.shape for n, t in model_class(config).state_dict().items()}
    for name in sorted({*expected, *tensors}):
        if name not in tensors or name not in expected or tensors[name].shape != expected[name]:
            shape = tuple(tensors[name].shape) if name in tensors else "missing"
            raise ValueError(
                f"{name} ({shape}) is not what a {model_class.__name__} of transformers has "
                f"({tuple(expected[name]) if name in expected else 'none'}), so the model cannot "
                f"be exported; give away the folder of the run"
            )


def _preprocessor(encoder: HuggingFaceEncoder | W2vBertEncoder) -> Any:
    """What prepares waveforms for the encoder in transformers.

    A mask for the padding is made for models with layer norms in their convolutions only: the
    others were trained without one.
    """
    if isinstance(encoder, W2vBertEncoder):
        n_mels = encoder.filterbanks.n_mels
        return import_transformers().SeamlessM4TFeatureExtractor(
            feature_size=n_mels, num_mel_bins=n_mels, sampling_rate=encoder.sample_rate,
            padding_value=0.0, stride=STACK,
        )  # fmt: skip
    return import_transformers().Wav2Vec2FeatureExtractor(
        sampling_rate=encoder.sample_rate,
        do_normalize=encoder.do_normalize,
        return_attention_mask=not reads_padding(encoder),
    )


def reads_padding(encoder: HuggingFaceEncoder | W2vBertEncoder) -> bool:
    """Whether transformers' convolutions of the model read the padding: they have a group norm."""
    return getattr(encoder.model.config, "feat_extract_norm", "layer") == "group"


def is_held_model(model: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder of transformers, not one of our own format, or a file of fairseq.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "config.json").write_text('{"model_type": "hubert"}')
    >>> is_held_model(folder)
    True
    >>> _ = (folder / "config.json").write_text('{"model_type": "hubert", "format": 1}')
    >>> is_held_model(folder)
    False
    """
    if os.path.isfile(model):
        return True
    path = os.path.join(model, CONFIG)
    if not os.path.isfile(path):  # a FIFO, too, which would wait for ever
        return False
    try:
        with open(path, "rb") as file:
            config = json.load(file)
    except (OSError, ValueError, RecursionError):  # the one who opens it says what is wrong
        return False
    ours = {"format", "made_by"}
    return isinstance(config, dict) and "model_type" in config and not ours & config.keys()
