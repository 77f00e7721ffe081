"""What w2v-BERT 2.0 reads: log-mel filterbanks as Kaldi computes them, of a batch at once.

Shape suffixes: B batch, L samples, T feature frames, W samples of a frame, F features, S encoder
frames, I features of an encoder frame.
"""

from __future__ import annotations

from typing import Any

import torch
from typing_extensions import override

from ..functional.imports import import_late
from ..masking import lengths_to_mask
from ..models.features import stack_frames

# Samples and constants of transformers' SeamlessM4TFeatureExtractor, the same at any sample rate.
WINDOW, HOP, FFT, STACK = 400, 160, 512, 2
PREEMPHASIS = 0.97
MEL_FLOOR = 1.192092955078125e-07
LEAST_VARIANCE = 1e-7


class Filterbanks(torch.nn.Module):
    """Log-mel filterbanks of waveforms, normalised over each clip; neighbours are side by side.

    For each clip they equal those of transformers' ``SeamlessM4TFeatureExtractor`` for that clip
    alone, whatever is beside it. They are computed in float64, because the difference to float32
    would be 5e-4 on speech.

    Arguments
    ---------
    sample_rate : int
        Samples per second of the waveforms.
    n_mels : int
        Features of a frame of 10 ms; ``STACK`` of them make one encoder frame.

    Example
    -------
    >>> filterbanks = Filterbanks()
    >>> wavs_BL, lengths_B = torch.rand(2, 16000) - 0.5, torch.tensor([16000, 8000])
    >>> feats_BSI = filterbanks(wavs_BL, lengths_B)
    >>> feats_BSI.shape, filterbanks.count_frames(lengths_B) // 2
    (torch.Size([2, 49, 160]), tensor([49, 24]))
    >>> bool((feats_BSI[1, 24:] == 0).all())
    True
    """

    window_W: torch.Tensor
    mel_weights: torch.Tensor

    def __init__(self, sample_rate: int = 16000, n_mels: int = 80) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.n_mels = n_mels
        self.dim = n_mels * STACK
        audio_utils = import_late("transformers.audio_utils")
        window_W = audio_utils.window_function(WINDOW, "povey", periodic=False)
        mel_weights = audio_utils.mel_filter_bank(
            num_frequency_bins=FFT // 2 + 1, num_mel_filters=n_mels, min_frequency=20,
            max_frequency=sample_rate // 2, sampling_rate=sample_rate, mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )  # fmt: skip
        self.register_buffer("window_W", torch.from_numpy(window_W), persistent=False)
        self.register_buffer("mel_weights", torch.from_numpy(mel_weights), persistent=False)

    @override
    @torch.no_grad()
    def forward(self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        """Normalised features.

        Arguments
        ---------
        wavs_BL : torch.Tensor
            Waveforms, shape (batch, samples).
        lengths_B : torch.Tensor
            Samples of each, on the device of the waveforms.

        Returns
        -------
        feats_BSI : torch.Tensor
            Float32, shape (batch, encoder frames, n_mels * STACK), zeros after the whole encoder
            frames of each clip.
        """
        feats_BTF = self.log_mels(wavs_BL)
        frames_B = self.count_frames(lengths_B)
        valid_BT1 = lengths_to_mask(frames_B, feats_BTF.shape[1])[..., None]
        count_B11 = frames_B.view(-1, 1, 1)
        # A frame that is left over after the last whole encoder frame counts, too.
        mean_B1F = (feats_BTF * valid_BT1).sum(1, keepdim=True) / count_B11.clamp(min=1)
        centred_BTF = (feats_BTF - mean_B1F) * valid_BT1
        variance_B1F = centred_BTF.square().sum(1, keepdim=True) / (count_B11 - 1).clamp(min=1)
        feats_BTF = centred_BTF / (variance_B1F + LEAST_VARIANCE).sqrt()
        whole = feats_BTF.shape[1] // STACK * STACK
        whole_BT1 = lengths_to_mask(frames_B // STACK * STACK, whole)[..., None]
        return stack_frames(feats_BTF[:, :whole] * whole_BT1, STACK)

    @torch.no_grad()
    def log_mels(self, wavs_BL: torch.Tensor) -> torch.Tensor:
        """Features that are not normalised yet, float32, shape (batch, frames, n_mels)."""
        with torch.autocast(wavs_BL.device.type, enabled=False):
            missing = max(0, WINDOW - wavs_BL.shape[1])
            wavs_BL = torch.nn.functional.pad(wavs_BL, (0, missing)).double()
            frames_BTW = (wavs_BL * 2**15).unfold(1, WINDOW, HOP)  # as of 16-bit integers
            frames_BTW = frames_BTW - frames_BTW.mean(-1, keepdim=True)
            before_BTW = torch.cat([frames_BTW[..., :1], frames_BTW[..., :-1]], dim=-1)
            frames_BTW = (frames_BTW - PREEMPHASIS * before_BTW) * self.window_W.double()
            spectrum = torch.view_as_real(torch.fft.rfft(frames_BTW, n=FFT))
            power = spectrum.square().sum(-1)
            mels_BTF = power @ self.mel_weights.double()
            return mels_BTF.clamp(min=MEL_FLOOR).log().float()

    def count_frames(self, num_samples: Any) -> Any:
        """Frames of 10 ms of utterances of so many samples, an int or a LongTensor."""
        frames = (num_samples - WINDOW) // HOP + 1
        return max(frames, 0) if isinstance(frames, int) else frames.clamp(min=0)
