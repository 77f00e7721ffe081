"""The codes of a run before its training: its quantiser encodes clips of its corpus.

Shape suffixes: L samples, T encoder frames, N frames of all clips, I inputs of the quantiser,
G codebooks.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from speechbrain.dataio.batch import PaddedBatch

from ..brains.best_rq import BestRQBrain
from ..brains.fitted_quantiser import frames_of_the_corpus
from ..brains.online_codebooks import OnlineCodebooksBrain
from ..brains.pretrain import PretrainBrain
from ..data.batches import LeftOutClip
from ..models.speech_encoder import SpeechEncoder, copy_that_normalises
from ..quantisers import Clips
from ..training.quality import as_in_validation
from ..training.randomness import derived_generator
from .code_facts import Encoded, facts_of, lines_of
from .code_findings import find_in_codes
from .section import Section

TITLE = "Codes before training"
FIT_FRAMES = 25_000  # at most, for a quantiser that the run fits to more
FIT_SHARE = 0.5  # of the time
ENCODE_SHARE = 0.2  # of the time at least, however long the fit has taken
MOST_FRAMES = 50_000  # that are encoded


def describe_codes(
    brain: Any, hparams: Mapping[str, Any], train_loader: Any, *, seconds: float
) -> Section:
    """The codes that a run would predict at its first step, of clips drawn from its corpus.

    A quantiser that the run would fit is fitted to a part of the corpus; afterwards it is as
    before.

    Arguments
    ---------
    brain : brainquant.training.brain.RunBrain
        Of the recipe, before ``fit``.
    hparams : dict
        What ``load_hparams`` gives.
    train_loader : torch.utils.data.DataLoader
        The training audio.
    seconds : float
        How long clips are read and encoded, about; at least one clip is.
    """
    if reason := why_no_codes(brain):
        return Section(TITLE, {"codes": None, "reason": reason}, [reason])
    until = time.perf_counter() + seconds
    brain.train_clips = train_loader.dataset
    with as_in_validation(brain.modules):
        encoder = copy_that_normalises(brain.raw("encoder"))
        try:
            with fitted(brain, encoder, FIT_SHARE * seconds) as fit_frames:
                until = max(until, time.perf_counter() + ENCODE_SHARE * seconds)
                encoded = encode_clips(brain, encoder, hparams["seed"], until)
                if encoded is None:
                    reason = "none: no clip of train_csv could be read"
                    return Section(TITLE, {"codes": None, "reason": reason}, [reason])
                facts = facts_of(brain.quantiser, encoded, brain.device)
        except ValueError as error:
            reason = f"none: the quantiser cannot be fitted ({error})"
            return Section(TITLE, {"codes": None, "reason": reason}, [reason])
    facts["fit_frames"] = fit_frames
    return Section(TITLE, facts, lines_of(facts), find_in_codes(facts, brain))


def why_no_codes(brain: Any) -> str | None:
    """Why a run has no codes before its training; None if it has some."""
    if not isinstance(brain, PretrainBrain):
        return "none: this recipe trains on transcripts"
    if isinstance(brain, OnlineCodebooksBrain):
        return "none yet: the codebooks begin with k-means of the first step's layers"
    if not isinstance(brain, BestRQBrain):
        return "none yet: the quantiser learns its codes from the first step on"
    return None


@contextmanager
def fitted(brain: PretrainBrain, encoder: SpeechEncoder, seconds: float) -> Iterator[int]:
    """The quantiser fitted to a part of the corpus; gives the number of its frames, 0 for none.

    The statistics of the encoder's normalisation learn these frames, too.
    """
    quantiser = brain.quantiser
    if not quantiser.frames_to_fit:
        yield 0
        return
    before = copy.deepcopy(quantiser.state_dict())
    wanted = min(quantiser.frames_to_fit, FIT_FRAMES)
    frames = frames_of_the_corpus(brain, encoder, wanted, seconds=seconds)
    if not frames:
        raise ValueError("none of the clips can be read")
    x_NI = torch.cat(frames)
    try:
        quantiser.fit(x_NI.to(brain.device))
        yield len(x_NI)
    finally:
        quantiser.load_state_dict(before)


def encode_clips(
    brain: PretrainBrain, encoder: SpeechEncoder, seed: int, until: float
) -> Encoded | None:
    """Frames of clips in a random order, as many as there is time for; None if there are none."""
    clips, found, held, number = brain.train_clips, [], 0.0, 0
    generator = derived_generator("cpu", seed, "the plan's codes")
    num_frames = 0
    for index in torch.randperm(len(clips), generator=generator).tolist():
        if isinstance(clip := clips[index], LeftOutClip):
            continue
        wavs_BL, lengths_B = brain.waveforms(PaddedBatch([clip]))
        inputs_BTI, frames_B = encoder.quantiser_inputs(wavs_BL, lengths_B)
        of_clip = Clips([clip["id"]], wavs_BL, lengths_B, inputs_BTI)
        codes_TG = brain.quantiser.encode_clips(of_clip)[0]
        read_TI = brain.quantiser.read(of_clip)[0]
        frames = int(frames_B[0])
        power_T = power_of_frames(clip["sig"], frames, encoder.stride)
        found.append((read_TI[:frames].float().cpu(), codes_TG[:frames].cpu(), power_T))
        held += len(clip["sig"]) / brain.hparams.sample_rate
        number, num_frames = number + 1, num_frames + frames
        if num_frames >= MOST_FRAMES or (num_frames and time.perf_counter() > until):
            break
    if not num_frames:
        return None
    inputs_NI, codes_NG, power_N = map(torch.cat, zip(*found))
    return Encoded(inputs_NI, codes_NG, power_N, number, held)


def power_of_frames(wav_L: torch.Tensor, num_frames: int, stride: int) -> torch.Tensor:
    """Mean square of the samples from each frame to the next, shape (frames,).

    Example
    -------
    >>> power_of_frames(torch.tensor([1.0, 1.0, 0.0, 2.0, 0.0]), 3, 2)
    tensor([1., 2., 0.])
    """
    wav_L = F.pad(wav_L, (0, max(num_frames * stride - len(wav_L), 0)))
    return wav_L[: num_frames * stride].view(num_frames, stride).square().mean(1)
