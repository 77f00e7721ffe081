"""A run of SpeechBrain's own BEST-RQ recipe, opened under the names of this package."""

from pathlib import Path
from types import SimpleNamespace

import ruamel.yaml
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.checkpoints import CKPT_PREFIX, Checkpoint, ckpt_recency
from speechbrain.utils.logger import get_logger

from ..models.features import stacks_ahead
from ..models.quick import quicken
from ..training.checkpoint_contents import Damaged, load_states, read_meta
from .best_rq import BestRQBrain

logger = get_logger(__name__)


def is_stock(hparams_file):
    """Whether a YAML is that of a run of SpeechBrain's BEST-RQ recipe."""
    with open(hparams_file, encoding="utf-8") as file:
        modules = ruamel.yaml.YAML().load(file).get("modules")
    return {"CNN", "wrapper", "normalize"} <= set(modules or ())


class StockBestRQ:
    """The encoder of a run of SpeechBrain's BEST-RQ recipe, under the names of ``BestRQBrain``.

    It computes what its ``train.py`` does for unmasked audio, but pads on the right, and what it
    gives for a clip does not depend on the clips beside it.

    Arguments
    ---------
    hparams_file : str
        The ``hyperparams.yaml`` of the run.
    overrides : dict
        What to change in it.
    """

    features = BestRQBrain.features
    encode_features = BestRQBrain.encode_features
    encode = BestRQBrain.encode
    count_frames = BestRQBrain.count_frames

    def __init__(self, hparams_file, overrides):
        with open(hparams_file, encoding="utf-8") as file:
            # A checkpointer would make its folder where it was when the run was made.
            hparams = load_hyperpyyaml(file, {"checkpointer": None, **overrides})
        self.hparams = SimpleNamespace(
            compute_features=hparams["compute_features"],
            stack=hparams["pad_to_divisible_by"],
            sample_rate=hparams["sample_rate"],
        )
        self.modules = torch.nn.ModuleDict({
            "normalize": hparams["modules"]["normalize"],
            "front_end": hparams["modules"]["CNN"],
            "encoder": hparams["modules"]["wrapper"],
        })  # fmt: skip
        quicken(self.modules.eval())
        feats_BTF = self.hparams.compute_features(torch.zeros(1, self.hparams.sample_rate))
        self.stacks_ahead = stacks_ahead(
            self.modules["front_end"], feats_BTF.shape[2], self.hparams.stack
        )

    def load(self, checkpoints_dir):
        """Takes the weights of the last whole checkpoint.

        Arguments
        ---------
        checkpoints_dir : str
            Folder of the checkpoints of the run.

        Raises
        ------
        ValueError
            Where there is none.
        """
        model = torch.nn.ModuleList([self.modules["front_end"], self.modules["encoder"]])
        recoverables = {"model": model, "normalize": self.modules["normalize"]}
        for checkpoint in stock_checkpoints(checkpoints_dir):
            try:
                load_states(recoverables, checkpoint)
            except Damaged as damage:  # SpeechBrain 1.1.2 writes in place: it may be cut short
                logger.warning(f"{checkpoint.path} is no whole checkpoint ({damage}): passed over")
            else:
                return
        raise ValueError(
            f"there is no whole checkpoint in {checkpoints_dir}: the run has not saved one "
            f"yet; train it first"
        )


def stock_checkpoints(checkpoints_dir):
    """The checkpoints of a folder that SpeechBrain wrote, the most recent first."""
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
