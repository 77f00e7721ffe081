"""Features of utterances from an encoder that is not trained any further, and log-mel.

Shape suffixes: T encoder frames of one utterance, D dim, F log-mel features.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.utils import seed_everything

from ..models import SpeechEncoder, quicken
from ..models.speech_encoder import parts_without_parameters
from ..recipe import without_seeding
from ..training.hparams import load_hparams

HOP = 0.01  # seconds from one log-mel frame to the next


@torch.no_grad()
def encode(encoder: SpeechEncoder, sig: torch.Tensor) -> list[np.ndarray]:
    """Outputs of each layer for one waveform, shape (frames, dim) each."""
    return _arrays(encoder.eval().layer_outputs(*_batch_of_one(encoder, sig)))


@torch.no_grad()
def encode_with_front_end(
    encoder: SpeechEncoder, sig: torch.Tensor
) -> tuple[np.ndarray, list[np.ndarray]]:
    """What the Transformer reads of one waveform, (frames, channels), and ``encode`` of it."""
    read_BTC, layers = encoder.eval().front_end_and_layers(*_batch_of_one(encoder, sig))
    return _arrays([read_BTC])[0], _arrays(layers)


@torch.no_grad()
def quantise(encoder: SpeechEncoder, quantiser: Any, sig: torch.Tensor) -> np.ndarray:
    """Codes of the whole frames of one waveform, shape (frames, codebooks)."""
    x_BTI, frames_B = encoder.eval().quantiser_inputs(*_batch_of_one(encoder, sig))
    return quantiser.eval().encode(x_BTI)[0, : int(frames_B[0])].cpu().numpy()


def _arrays(layers: list[torch.Tensor]) -> list[np.ndarray]:
    return [layer[0].float().cpu().numpy() for layer in layers]


def _batch_of_one(encoder: SpeechEncoder, sig: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    device = next(encoder.parameters()).device
    return sig[None].to(device), torch.tensor([len(sig)])


def untrained(encoder: SpeechEncoder, hparams: dict[str, Any], seed: int) -> SpeechEncoder:
    """The same encoder as it would be before training with another seed.

    Arguments
    ---------
    encoder : SpeechEncoder
        After training. The result shares its parts without parameters, such as a normalisation.
    hparams : dict
        Hyperparameters of its run; reads ``hparams_file``, ``overrides`` and ``output_folder``.
    seed : int
        Draws the weights.
    """
    # Nothing writes into the folder of the run.
    changes = {"seed": seed, "output_folder": hparams["output_folder"], "train_loggers": []}
    changes |= {"checkpointer": None, **without_seeding(hparams["hparams_file"])}
    seed_everything(seed)
    overrides = {**hparams["overrides"], **changes}
    built = load_hparams(hparams["hparams_file"], overrides, refuse_unused=False)
    fresh = built["modules"]["encoder"].to(next(encoder.parameters()).device)
    if built["quick_layers"]:
        quicken(fresh)
    for name, part in parts_without_parameters(encoder).items():
        setattr(fresh, name, part)
    return fresh


def log_mel_frames(sig: torch.Tensor, sample_rate: int) -> np.ndarray:
    """Log-mel energies, 80 per 10 ms, an array (frames, 80)."""
    return _log_mel(sample_rate)(sig[None])[0].numpy()


@functools.cache
def _log_mel(sample_rate: int) -> Fbank:
    return Fbank(sample_rate=sample_rate, n_fft=max(400, sample_rate // 40), n_mels=80)


def log_mel_windows(
    sig: torch.Tensor, sample_rate: int, times: np.ndarray, context: int
) -> np.ndarray:
    """Log-mel minus its mean, over the same stretch of time as encoder frames and their context.

    Arguments
    ---------
    sig : torch.Tensor
        Waveform, shape (samples,).
    sample_rate : int
        Of the waveform.
    times : array
        Seconds at the middle of each encoder frame.
    context : int
        Encoder frames on both sides.

    Returns
    -------
    windows : array
        Shape (encoder frames, log-mel frames of the stretch * 80).
    """
    feats_TF = log_mel_frames(sig, sample_rate)
    feats_TF = feats_TF - feats_TF.mean(0)
    step = times[1] - times[0] if len(times) > 1 else HOP
    width = max(1, round(step * (2 * context + 1) / HOP))
    first = np.round(times / HOP - (width - 1) / 2).astype(int)
    index = np.clip(first[:, None] + np.arange(width), 0, len(feats_TF) - 1)
    return feats_TF[index].reshape(len(times), -1)
