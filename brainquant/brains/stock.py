"""The encoder of a run of SpeechBrain's own BEST-RQ recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ruamel.yaml
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.checkpoints import CKPT_PREFIX, Checkpoint, ckpt_recency
from speechbrain.utils.logger import get_logger

from ..models.best_rq import BestRQEncoder
from ..models.features import InputNormalization
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
    modules = hparams["modules"]
    stock = modules["normalize"]
    encoder = BestRQEncoder(
        hparams["compute_features"],
        InputNormalization(**{name: getattr(stock, name) for name in NORMALISATION}),
        modules["CNN"],
        modules["wrapper"],
        hparams["pad_to_divisible_by"],
    )
    quicken(encoder)
    if weights:
        load_stock_weights(encoder, os.path.join(os.path.dirname(hparams_file), "save"))
    return encoder


def load_stock_weights(encoder: BestRQEncoder, checkpoints_dir: str) -> None:
    """Loads the last whole checkpoint in a folder of SpeechBrain's; a ValueError without one."""
    model = torch.nn.ModuleList([encoder.front_end, encoder.transformer])
    recoverables = {"model": model, "normalize": encoder.normalize}
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
