"""From waveforms to the inputs of the Transformer, in operators that ONNX has.

Shape suffixes: B batch, L samples, T frames, C channels, F frequencies or features, O output
channels, M mel filters, S stacks of frames, D dim, I features of a stack.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from speechbrain.lobes.features import Fbank
from speechbrain.nnet.CNN import Conv2d, get_padding_elem
from speechbrain.processing.features import STFT

from ...masking import lengths_to_mask
from ...models.best_rq import BestRQEncoder
from ...models.extractor import Wav2Vec2Extractor
from ...models.features import normalise_utterances, relative_lengths
from ...models.layers import ChannelsLastConv2d
from ...models.speech_encoder import Encoded


class OnnxSTFT(STFT):
    """The short-time Fourier transform as one convolution: ONNX Runtime's own is slow."""

    basis: torch.Tensor

    def prepare(self) -> None:
        """Makes the kernel: windowed cosines, then negative sines."""
        size = self.n_fft
        left = (size - self.win_length) // 2
        window_L = F.pad(self.window.double(), (left, size - self.win_length - left))
        if self.normalized_stft:
            window_L = window_L / math.sqrt(size)
        # The products are exact integers, so large angles lose no digits.
        turns_FL = torch.outer(torch.arange(size // 2 + 1), torch.arange(size)) % size
        angle_FL = turns_FL.double() * (2 * math.pi / size)
        basis_FL = torch.cat([angle_FL.cos(), -angle_FL.sin()]) * window_L
        self.register_buffer("basis", basis_FL.float()[:, None])

    def parts(self, wavs_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Real and imaginary part, shape (batch, frequencies, frames) each."""
        padding = (self.n_fft // 2,) * 2 if self.center else (0, 0)
        wavs_B1L = F.pad(wavs_BL[:, None], padding, mode=self.pad_mode)
        real_BFT, imaginary_BFT = F.conv1d(wavs_B1L, self.basis, stride=self.hop_length).chunk(2, 1)
        return real_BFT, imaginary_BFT

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The transform, shape (batch, frames, frequencies, 2)."""
        return torch.stack(self.parts(x), -1).transpose(1, 2)


class OnnxFbank(Fbank):
    """Log-mel features, without the matrix of the filters among the operators."""

    filters: torch.Tensor

    def prepare(self) -> None:
        """Makes that matrix."""
        mel = self.compute_fbanks
        mel.log_mel = False
        self.register_buffer("filters", mel(torch.eye(mel.n_stft)[None])[0].T.clone())

    def forward(self, wav: torch.Tensor) -> torch.Tensor:
        """Features, shape (batch, frames, features)."""
        stft: Any = self.compute_STFT
        real_BFT, imaginary_BFT = stft.parts(wav)
        power_BFT = real_BFT * real_BFT + imaginary_BFT * imaginary_BFT
        feats_BTM = self.compute_fbanks._amplitude_to_DB((self.filters @ power_BFT).mT)
        if self.deltas:
            first = self.compute_deltas(feats_BTM)
            feats_BTM = torch.cat([feats_BTM, first, self.compute_deltas(first)], dim=2)
        return self.context_window(feats_BTM) if self.context else feats_BTM


class OnnxConv2d(ChannelsLastConv2d):
    """A convolution over frames and features, without functions of autograd."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolves; shapes as in ``ChannelsLastConv2d``."""
        if self.swap or self.skip_transpose or self.max_norm or self.padding == "causal":
            return Conv2d.forward(self, x)
        x_BCTF = x[:, None] if self.unsqueeze else x.permute(0, 3, 1, 2)
        if self.padding == "same":
            sizes = zip(self.stride, self.kernel_size, self.dilation)  # features first, then frames
            padding = sum((get_padding_elem(self.in_channels, *size) for size in sizes), [])
            x_BCTF = F.pad(x_BCTF, padding, mode=self.padding_mode)
        conv: Any = self.conv
        y_BOTF = F.conv2d(
            x_BCTF, conv.weight.mT, conv.bias, self.stride[::-1], 0, self.dilation[::-1],
            conv.groups,
        )  # fmt: skip
        return y_BOTF.permute(0, 2, 3, 1)


class OnnxWav2Vec2Extractor(Wav2Vec2Extractor):
    """The extractor without functions of autograd; it has no penalty."""

    def forward(self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Latents, shape (batch, frames, channels)."""
        x_BTC = normalise_utterances(wavs_BL, lengths_B)[..., None]
        blocks: list[Any] = list(self.extractor.children())
        for block in blocks:
            conv, norm, gelu = list(block.convs.children())[:3]
            x_BTC = gelu(norm(convolve(x_BTC, conv.conv)))
        return self.norm(x_BTC), None


def convolve(x_BTC: torch.Tensor, conv: torch.nn.Conv1d) -> torch.Tensor:
    """A convolution as a product of its windows: ONNX Runtime's needs the channels first."""
    (K,), (stride,) = conv.kernel_size, conv.stride
    B, length, C = x_BTC.shape
    T = (length - K) // stride + 1
    frame_TK = torch.arange(T)[:, None] * stride + torch.arange(K)
    windows_BTX = x_BTC.index_select(1, frame_TK.flatten()).view(B, T, K * C)
    return windows_BTX @ conv.weight.permute(2, 1, 0).flatten(0, 1)


class OnnxBestRQEncoder(BestRQEncoder):
    """The encoder of BEST-RQ, which gathers frames where torch would have to prove a size."""

    def forward(
        self,
        wavs_BL: torch.Tensor,
        lengths_B: torch.Tensor,
        mask_BT: torch.Tensor | None = None,
        noise_BTF: torch.Tensor | None = None,
    ) -> Encoded:
        """Encodes; nothing is masked."""
        feats_BTF = self.compute_features(wavs_BL)
        frames_B = self.count_feature_frames(lengths_B)
        B, T, _ = feats_BTF.shape
        feats_BTF = self.normalize(feats_BTF, relative_lengths(frames_B, T))
        feats_BTF = feats_BTF.masked_fill(~lengths_to_mask(frames_B, T)[..., None], 0.0)
        S, ahead = (T + self.stack - 1) // self.stack, self.stacks_ahead
        feats_BTF = F.pad(feats_BTF, (0, 0, 0, (ahead + 1) * self.stack))
        feats_BTF = feats_BTF.index_select(1, torch.arange((S + ahead) * self.stack))
        inputs_BSI = feats_BTF.view(B, S + ahead, self.input_dim).index_select(1, torch.arange(S))
        steps_B = self.count_frames(lengths_B)
        hidden_BSD = self.front_end(feats_BTF).flatten(2).index_select(1, torch.arange(S))
        return Encoded(self.transformer(hidden_BSD, steps_B / S), steps_B, inputs_BSI)
