"""Features of utterances, from a Brain that is not trained any further, and from log-mel.

Shape suffixes: T encoder frames of one utterance, D dim, F log-mel features.
"""

import copy
import functools

import numpy as np
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.lobes.features import Fbank
from speechbrain.utils import seed_everything

from ..brains.trained import without_seeding
from ..models.layers import has_parameters
from ..models.quick import quicken
from ..training.hparams import load_hparams

HOP = 0.01  # seconds from one log-mel frame to the next


@torch.no_grad()
def layer_features(brain, batch):
    """Outputs of each encoder layer for unmasked audio.

    Arguments
    ---------
    brain : PretrainBrain
        Whose ``encoder`` has a list of ``layers``.
    batch : PaddedBatch
        With ``sig``.

    Returns
    -------
    layers : list of torch.Tensor
        Shape (batch, frames, dim) each, from the first layer to the last.
    """
    outputs = []

    def keep(module, inputs, output):
        outputs.append(output[0] if isinstance(output, tuple) else output)

    encoder = brain.raw("encoder")
    layers = next(m for name, m in encoder.named_modules() if name.endswith("layers"))
    hooks = [layer.register_forward_hook(keep) for layer in layers]
    brain.modules.eval()
    brain.encode(*brain.waveforms(batch))
    for hook in hooks:
        hook.remove()
    return outputs


def encode(brain, sig):
    """Outputs of each encoder layer for one waveform, a list of arrays (frames, dim)."""
    layers = layer_features(brain, PaddedBatch([{"sig": sig}]))
    return [layer[0].float().cpu().numpy() for layer in layers]


@torch.no_grad()
def quantise(brain, sig):
    """Codes of the audio's whole frames, an array (frames, codebooks)."""
    brain.modules.eval()
    wavs_BL, lengths_B = brain.waveforms(PaddedBatch([{"sig": sig}]))
    x_BTI, frames_B = brain.quantiser_inputs(wavs_BL, lengths_B)
    return brain.raw("quantiser").encode(x_BTI)[0, : int(frames_B[0])].cpu().numpy()


def on_one_rank(brain):
    """The Brain for one rank alone: DistributedDataParallel may broadcast in any forward."""
    brain = copy.copy(brain)
    brain.modules = torch.nn.ModuleDict({name: brain.raw(name) for name in brain.modules})
    return brain


def untrained(brain, hparams_file, overrides, seed):
    """The same Brain as it would be before training, of another seed.

    Arguments
    ---------
    brain : PretrainBrain
        After training.
    hparams_file : str
        The YAML that it was built from, or the copy of it in the run's folder.
    overrides : dict
        What the command line changed in it.
    seed : int
        Draws the weights.

    Returns
    -------
    brain : PretrainBrain
        What has no parameters, such as the statistics of a normalisation, is the trained one's.
    """
    # Nothing is written by this Brain.
    changes = {"seed": seed, "output_folder": brain.hparams.output_folder}
    changes |= {"train_loggers": [], "checkpointer": None, **without_seeding(hparams_file)}
    seed_everything(seed)
    hparams = load_hparams(hparams_file, {**overrides, **changes}, refuse_unused=False)
    fresh = torch.nn.ModuleDict(hparams["modules"]).to(brain.device)
    if brain.hparams.quick_layers:
        quicken(fresh)
    without_training = copy.copy(brain)
    without_training.modules = torch.nn.ModuleDict({
        name: module if has_parameters(module) else brain.modules[name]
        for name, module in fresh.items()
    })  # fmt: skip
    return without_training


def log_mel_frames(sig, sample_rate):
    """Log-mel energies, 80 per 10 ms, an array (frames, 80)."""
    return _log_mel(sample_rate)(sig[None])[0].numpy()


@functools.cache
def _log_mel(sample_rate):
    return Fbank(sample_rate=sample_rate, n_fft=max(400, sample_rate // 40), n_mels=80)


def log_mel_windows(sig, sample_rate, times, context):
    """Log-mel less its mean, within the stretch of time of encoder frames and their context.

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
