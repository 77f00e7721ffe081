"""The encoder of a run of SpeechBrain's own BEST-RQ recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ruamel.yaml
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.checkpoints import CKPT_PREFIX, Checkpoint, ckpt_recency
from speechbrain.utils.logger import get_logger

from ..models.best_rq import BestRQEncoder
from ..models.features import InputNormalization
from ..models.layers import DynamicChunkEncoder
from ..models.quick import quicken
from ..training.checkpoint_contents import Damaged, load_states, read_meta

logger = get_logger(__name__)

NORMALISATION = ("std_norm", "norm_type", "update_until_epoch", "avoid_padding_norm", "epsilon")


def is_stock(hparams_file: str) -> bool:
    """Whether a YAML is that of a run of SpeechBrain's BEST-RQ recipe."""
    with open(hparams_file, encoding="utf-8") as file:
        modules = ruamel.yaml.YAML().load(file).get("modules")
    return {"CNN", "wrapper", "normalize"} <= set(modules or ())


def stock_encoder(
    hparams_file: str, overrides: dict[str, Any], *, weights: bool = True
) -> BestRQEncoder:
    """The encoder of a run of SpeechBrain's BEST-RQ recipe.

    It computes what the recipe's ``train.py`` does for unmasked audio, but pads on the right, and
    its outputs for a clip do not depend on the clips beside it.

    Arguments
    ---------
    hparams_file : str
        The ``hyperparams.yaml`` in the folder of the run.
    overrides : dict
        Changes of the YAML.
    weights : bool
        Whether to load the last whole checkpoint in the folder ``save`` beside the YAML.

    Raises
    ------
    ValueError
        If there is no whole checkpoint.
    """
    with open(hparams_file, encoding="utf-8") as file:
        # A checkpointer would make its folder where it was when the run was made.
        hparams = load_hyperpyyaml(file, {"checkpointer": None, **overrides})
    encoder = make_encoder(hparams)
    quicken(encoder)
    if weights:
        load_last(recoverables(encoder), os.path.dirname(hparams_file))
    return encoder


def make_encoder(hparams: Mapping[str, Any], *, in_chunks: bool = False) -> BestRQEncoder:
    """The encoder of the objects of the recipe's YAML.

    Arguments
    ---------
    hparams : dict
        What ``load_hyperpyyaml`` gives.
    in_chunks : bool
        Whether the encoder reads chunks if ``streaming:`` says so, as the recipe trains it.
    """
    modules = hparams["modules"]
    stock, transformer = modules["normalize"], modules["wrapper"]
    if in_chunks and hparams.get("streaming"):
        sampler = hparams["dynchunktrain_config_sampler"]
        transformer = DynamicChunkEncoder(transformer.transformer, sampler)
    return BestRQEncoder(
        hparams["compute_features"],
        InputNormalization(**{name: getattr(stock, name) for name in NORMALISATION}),
        modules["CNN"],
        transformer,
        hparams["pad_to_divisible_by"],
    )


def recoverables(encoder: BestRQEncoder) -> dict[str, torch.nn.Module]:
    """What the recipe's checkpoints hold of an encoder, by the names of their files."""
    model = torch.nn.ModuleList([encoder.front_end, encoder.transformer])
    return {"model": model, "normalize": encoder.normalize}


def load_last(recoverables: Mapping[str, Any], run_folder: str) -> None:
    """Loads the last whole checkpoint of a run of SpeechBrain; a ValueError without one."""
    checkpoints_dir = os.path.join(run_folder, "save")
    for checkpoint in stock_checkpoints(checkpoints_dir):
        try:
            load_states(recoverables, checkpoint)
        except Damaged as damage:  # SpeechBrain 1.1.2 writes in place: a file may be cut short
            logger.warning(f"{checkpoint.path} is no whole checkpoint ({damage}): passed over")
        else:
            return
    raise ValueError(
        f"there is no whole checkpoint in {checkpoints_dir}: the run has not saved one yet; "
        f"train it first"
    )


def stock_checkpoints(checkpoints_dir: str) -> list[Checkpoint]:
    """The checkpoints in a folder of SpeechBrain's, the most recent first."""
    found = []
    for folder in sorted(Path(checkpoints_dir).glob(f"{CKPT_PREFIX}*")):
        try:
            meta = read_meta(folder)
        except Damaged as damage:
            logger.warning(f"{folder} is no whole checkpoint ({damage}): passed over")
        else:
            files = {path.stem: path for path in folder.glob("*.ckpt")}
            found.append(Checkpoint(folder, meta, files))
    return sorted(found, key=ckpt_recency, reverse=True)
