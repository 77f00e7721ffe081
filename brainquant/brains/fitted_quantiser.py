"""Fits the quantiser of a pretraining to the corpus, before the first step.

Shape suffixes: B batch, L samples, T encoder frames, N frames of all clips, I inputs of the
quantiser.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from ..data.batches import LeftOutClip
from ..errors import RunError
from ..models.speech_encoder import SpeechEncoder, copy_that_normalises
from ..quantisers.base import Clips
from ..ranks import on_main_process
from ..training.randomness import derived_generator

if TYPE_CHECKING:
    from .pretrain import PretrainBrain

logger = get_logger(__name__)


def fit_quantiser(brain: PretrainBrain) -> None:
    """Fits the quantiser of a Brain, unless it needs no fit or is fitted already.

    Every rank has to call this, and gets what the main process has fitted.

    Raises
    ------
    RunError
        If no clip can be read, or if the quantiser cannot be fitted to the clips.
    """
    quantiser = brain.quantiser
    if not quantiser.frames_to_fit:
        return
    try:
        state = fitted_state(brain)
    except ValueError as error:
        raise RunError(f"the quantiser cannot be fitted to train_csv: {error}") from error
    quantiser.load_state_dict(on_main_process(lambda: state))


@torch.no_grad()
def fitted_state(brain: PretrainBrain) -> dict[str, torch.Tensor]:
    """Fits the quantiser to clips drawn from the whole corpus; returns its new state.

    Every rank uses the same clips, since a normalisation over the corpus adds up over ranks.
    """
    quantiser: Any = brain.quantiser
    brain.modules.eval()
    encoder = copy_that_normalises(brain.raw("encoder"))
    frames = frames_of_the_corpus(brain, encoder, quantiser.frames_to_fit)
    if not frames:
        raise ValueError("none of its clips can be read")
    x_NI = torch.cat(frames)
    frames.clear()  # hundreds of megabytes, for thousands of clusters
    quantiser.fit(x_NI.to(brain.device))
    logger.info(f"The quantiser is fitted to {len(x_NI)} frames of the corpus")
    return {name: tensor.cpu() for name, tensor in quantiser.state_dict().items()}


def frames_of_the_corpus(
    brain: PretrainBrain, encoder: SpeechEncoder, wanted: int, *, seconds: float = math.inf
) -> list[torch.Tensor]:
    """At most ``wanted`` frames, as the quantiser reads them, of clips drawn at random.

    Reads no further clip after so many seconds.
    """
    seen, frames, clips = 0, [], brain.train_clips
    until = time.perf_counter() + seconds
    generator = derived_generator("cpu", brain.hparams.seed, "fit the quantiser")
    hidden = brain.noprogressbar or None  # None: only in a terminal
    progress = tqdm(total=wanted, desc="fitting the quantiser", unit=" frames", disable=hidden)
    for index in torch.randperm(len(clips), generator=generator).tolist():
        clip = clips[index]
        if isinstance(clip, LeftOutClip):  # the training reports it
            continue
        brain.watchdog.tick("fitting the quantiser")
        wavs_BL, lengths_B = brain.waveforms(PaddedBatch([clip]))
        x_BTI, frames_B = encoder.quantiser_inputs(wavs_BL, lengths_B)
        x_BTI = brain.quantiser.read(Clips([clip["id"]], wavs_BL, lengths_B, x_BTI))
        x_TI = x_BTI[0, : int(frames_B[0])].float().cpu()
        x_TI = x_TI[x_TI.isfinite().all(1)]
        if len(x_TI):
            frames.append(x_TI[: wanted - seen])
            seen += len(frames[-1])
            progress.update(len(frames[-1]))
        if seen == wanted or time.perf_counter() > until:
            break
    progress.close()
    return frames
