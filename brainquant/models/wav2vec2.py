"""The encoder of wav2vec 2.0: a convolutional extractor and a Transformer.

Shape suffixes: B batch, L samples, T latent frames, C latent channels, D dim.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from speechbrain.lobes.models import wav2vec
from typing_extensions import override

from ..functional.transfer import to_device
from .extractor import Wav2Vec2Extractor
from .features import LEAST_DEVIATION, normalise_utterances
from .long_features import Wav2Vec2Pieces
from .speech_encoder import Encoded, SpeechEncoder, try_modules


class Wav2Vec2Encoder(SpeechEncoder):
    """Encodes audio as wav2vec 2.0 does (Baevski et al., https://arxiv.org/abs/2006.11477).

    Arguments
    ---------
    extractor : Wav2Vec2Extractor
        Makes latents of waveforms.
    transformer : speechbrain.lobes.models.wav2vec.EncoderWrapper
        Called with latents, relative lengths and a mask: ``brainquant.models.MaskingEncoder``.
    sample_rate : int
        Samples per second of the waveforms.
    normalise_targets : bool
        Whether the quantiser's inputs are latents whose channels have mean zero and variance one
        over each utterance, as the features of BEST-RQ do. The negatives of a frame are of its own
        utterance, so what all frames of an utterance share does not help. Without it, one hour
        of training hardly makes codes that tell frames apart (docs/explanation/learning.md). The
        paper does not normalise them.

    Example
    -------
    >>> from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
    >>> conformer = ConformerEncoder(2, 16, 32, 2, attention_type="regularMHA")
    >>> encoder = Wav2Vec2Encoder(
    ...     Wav2Vec2Extractor(out_channels=[8] * 7), wav2vec.EncoderWrapper(8, 16, conformer)
    ... )
    >>> encoded = encoder(torch.rand(2, 16000), torch.tensor([16000, 8000]))
    >>> encoded.hidden_BTD.shape, encoded.frames_B, encoded.inputs_BTI.shape
    (torch.Size([2, 48, 16]), tensor([48, 23]), torch.Size([2, 48, 8]))
    >>> encoder.frame_times(2).round(3)
    array([0.02, 0.04])
    """

    used_if_masked = ("transformer.mask_emb",)
    feature_parts = ("extractor",)
    context_seconds = 2.0

    def __init__(
        self,
        extractor: Wav2Vec2Extractor,
        transformer: wav2vec.EncoderWrapper,
        sample_rate: int = 16000,
        normalise_targets: bool = False,
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.transformer = transformer
        self.sample_rate = sample_rate
        self.normalise_targets = normalise_targets
        self.input_dim = extractor.out_dim
        samples = max(2 * sample_rate, self.min_samples)
        wavs_BL, lengths_B = torch.zeros(1, samples), torch.tensor([samples])
        self.eval()
        encoded = try_modules("extractor and transformer", self, wavs_BL, lengths_B)
        self.train()
        self.dim = encoded.hidden_BTD.shape[2]

    @override
    def forward(
        self,
        wavs_BL: torch.Tensor,
        lengths_B: torch.Tensor,
        mask_BT: torch.Tensor | None = None,
    ) -> Encoded:
        """Encodes.

        Arguments
        ---------
        wavs_BL : torch.Tensor
            Waveforms, shape (batch, samples).
        lengths_B : torch.Tensor
            Samples of each, on the host or on the device of the waveforms.
        mask_BT : torch.Tensor or None
            BoolTensor, True for each of the ``count_frames(samples)`` latent frames that the
            mask embedding replaces.

        Returns
        -------
        encoded : Encoded
            ``inputs_BTI`` are not masked; ``penalty`` is that of the extractor.

        Raises
        ------
        ValueError
            If no clip is long enough for a frame.
        """
        latents_BTC, penalty = self.extractor(wavs_BL, to_device(lengths_B, wavs_BL.device))
        frames_B = self.count_frames(lengths_B)
        hidden_BTD = self.encode_features(latents_BTC, frames_B, mask_BT)
        frames_B = to_device(frames_B, latents_BTC.device)
        return Encoded(hidden_BTD, frames_B, self._targets(latents_BTC, frames_B), penalty)

    @override
    def encode_features(
        self,
        feats_BTF: torch.Tensor,
        frames_B: torch.Tensor,
        mask_BT: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Outputs for latents, shape (batch, frames, dim)."""
        relative_B = to_device(frames_B.clamp(min=1) / feats_BTF.shape[1], feats_BTF.device)
        return self.transformer(feats_BTF, wav_lens=relative_B, mask=mask_BT)["embeddings"]

    @override
    def checkpoint_activations(self) -> None:
        super().checkpoint_activations()
        self.extractor.recompute = True

    @override
    def in_pieces(self) -> Wav2Vec2Pieces:
        return Wav2Vec2Pieces(self)

    def _targets(self, latents_BTC: torch.Tensor, frames_B: torch.Tensor) -> torch.Tensor:
        if not self.normalise_targets:
            return latents_BTC
        return normalise_utterances(latents_BTC.float(), frames_B, LEAST_DEVIATION)

    @override
    def quantiser_inputs(
        self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents, (batch, frames, channels), and the frames of each."""
        lengths_B = to_device(lengths_B, wavs_BL.device)
        latents_BTC, _ = self.extractor(wavs_BL, lengths_B)
        frames_B = self.count_frames(lengths_B)
        return self._targets(latents_BTC, frames_B), frames_B

    @override
    def count_frames(self, num_samples: Any) -> Any:
        if isinstance(num_samples, int):
            return int(self.count_frames(torch.tensor(num_samples)))
        return self.extractor.get_output_lengths(num_samples).clamp(min=0)

    @override
    def frame_times(self, num_frames: int) -> np.ndarray:
        field, stride = self.extractor.field_and_stride()
        return (np.arange(num_frames) * stride + field / 2) / self.sample_rate

    @property
    @override
    def min_samples(self) -> int:
        field, _ = self.extractor.field_and_stride()
        return field

    @property
    @override
    def stride(self) -> int:
        _, stride = self.extractor.field_and_stride()
        return stride
