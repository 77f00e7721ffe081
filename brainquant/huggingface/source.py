"""Where a public model is: a folder of transformers, a Hub id, or a checkpoint of fairseq."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .fairseq import read_fairseq
from .hub import download, is_hub_id

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
HUB_ID = "hub_id.txt"  # beside the copy of a model in the folder of a run
# Weights in one file or in several. MMS also has an adapter for each of 1,100 languages.
SAFE = ("model.safetensors", "model-?????-of-?????.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model-?????-of-?????.bin", "pytorch_model.bin.index.json")


class Source(NamedTuple):
    """A folder of transformers, or what a checkpoint of fairseq is in transformers."""

    folder: str  # or the file of the checkpoint
    config: dict[str, Any]  # of config.json
    sample_rate: int
    do_normalize: bool  # whether waveforms get mean zero and variance one
    state: dict[str, torch.Tensor] | None = None  # of a checkpoint of fairseq


def find_model(model: str | os.PathLike[str], revision: str | None = None) -> Source:
    """The folder of a public model, which is downloaded if it is a Hub id; or its content.

    Arguments
    ---------
    model : str or os.PathLike
        A folder with ``config.json``, as ``save_pretrained`` of transformers writes it; the id of a
        model on the Hugging Face Hub, as in ``facebook/wav2vec2-base``; or a ``.pt`` file of
        fairseq, see ``brainquant.huggingface.fairseq``.
    revision : str or None
        Branch, tag or commit on the Hub.

    Raises
    ------
    ValueError
        If there is no such model.

    Example
    -------
    >>> find_model(getfixture("tmp_path"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: model: ... has no config.json; give a folder that save_pretrained of ...
    """
    folder = os.fspath(model)
    if os.path.isfile(folder) and Path(folder).suffix in (".safetensors", ".json", ".bin"):
        raise ValueError(
            f"model: {folder} is one file of a model; give its folder, {Path(folder).parent}"
        )
    if os.path.isfile(folder):
        fairseq = read_fairseq(folder)
        return Source(
            folder, fairseq.config, fairseq.sample_rate, fairseq.do_normalize, fairseq.state
        )
    if not os.path.isdir(folder):
        if not is_hub_id(folder):
            raise ValueError(
                f"model: there is no folder or file {folder}, and it is no Hub id, which is "
                f"user/name; give a folder of transformers, a .pt file of fairseq, or a Hub id "
                f"such as facebook/wav2vec2-base"
            )
        folder = download_model(folder, revision)
    config = _read_json(folder, CONFIG)
    if config is None:
        if os.path.isfile(os.path.join(folder, "hyperparams.yaml")):
            raise ValueError(
                f"model: {folder} is the folder of a run; to begin with its weights, set "
                f"begin_from: to it, in the YAML that it was trained with"
            )
        raise ValueError(
            f"model: {folder} has no {CONFIG}; give a folder that save_pretrained of transformers "
            f"has written, or a Hub id such as facebook/wav2vec2-base"
        )
    # Without the file, transformers' own defaults hold.
    preprocessor = _read_json(folder, PREPROCESSOR) or {}
    rate = preprocessor.get("sampling_rate", 16000)
    if type(rate) is not int or rate < 1:
        raise ValueError(
            f"model: sampling_rate in {os.path.join(folder, PREPROCESSOR)} must be a whole number "
            f"from 1 up, got {rate!r}; correct it, or download the model again"
        )
    return Source(
        folder,
        config,
        rate,
        bool(preprocessor.get("do_normalize", True)),
    )


def write_description(source: Source, folder: str) -> None:
    """Writes ``preprocessor_config.json`` and then ``config.json``, as a folder of transformers."""
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": source.sample_rate,
        "padding_value": 0.0,
        "do_normalize": source.do_normalize,
        "return_attention_mask": source.config["feat_extract_norm"] == "layer",
    }
    for name, content in ((PREPROCESSOR, preprocessor), (CONFIG, source.config)):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)


def download_model(model: str, revision: str | None = None) -> str:
    """Downloads a model of transformers, or one that ``brainquant push`` has uploaded.

    Pickled weights are downloaded only if there are no others; they are read without executing
    anything.

    Arguments and errors are those of ``download``.
    """
    folder = download(model, revision, files=[CONFIG, PREPROCESSOR, *SAFE], needed=[CONFIG])
    if not any(Path(folder).glob("model*.safetensors")):
        folder = download(model, revision, files=[*PICKLED], needed=[])
    return folder


def _read_json(folder: str, name: str) -> dict[str, Any] | None:
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, RecursionError, ValueError) as error:
        raise ValueError(f"model: {path} is no JSON ({error}); download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"model: {path} must have keys and values; download it again")
    return content
