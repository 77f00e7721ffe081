"""The encoder of BEST-RQ: log-mel features, convolutions and a Transformer.

Shape suffixes: B batch, L samples, T feature frames, F features, S stacks (encoder frames), D dim,
I features of a stack.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from speechbrain.lobes.models.transformer.TransformerASR import EncoderWrapper, TransformerASR
from speechbrain.processing import features as speechbrain_features
from typing_extensions import override

from ..functional.transfer import to_device
from .checkpointing import checkpoint_activations
from .features import (
    InputNormalization,
    pad_to_stacks,
    relative_lengths,
    stack_frames,
    stacks_ahead,
)
from .long_features import BestRQPieces
from .speech_encoder import Encoded, SpeechEncoder, try_modules


class BestRQEncoder(SpeechEncoder):
    """Encodes audio as BEST-RQ does (Chiu et al., https://arxiv.org/abs/2202.01855).

    ``stack`` feature frames make one encoder frame; side by side they are one input of the
    quantiser. The outputs for a clip do not depend on the clips beside it.

    Arguments
    ---------
    compute_features : torch.nn.Module
        Makes features of waveforms, as SpeechBrain's ``Fbank`` does: it has a ``compute_STFT``.
    normalize : torch.nn.Module
        Called with features and relative lengths: ``brainquant.models.InputNormalization``.
    front_end : torch.nn.Module
        Makes one step of each stack, such as SpeechBrain's ``ConvolutionFrontEnd``.
    transformer : torch.nn.Module
        SpeechBrain's ``TransformerASR``, or a module that is called with steps and relative
        lengths, such as ``brainquant.models.DynamicChunkEncoder``.
    stack : int
        Feature frames of one encoder frame.

    Raises
    ------
    ValueError
        If the sizes of two modules do not fit; the message names both.

    Example
    -------
    >>> from speechbrain.lobes.features import Fbank
    >>> from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
    >>> encoder = BestRQEncoder(
    ...     compute_features=Fbank(n_mels=8),
    ...     normalize=InputNormalization(norm_type="sentence"),
    ...     front_end=ConvolutionFrontEnd(
    ...         (1, 8, 8), num_blocks=2, num_layers_per_block=1, out_channels=[4, 4],
    ...         strides=[2, 2], residuals=[False, False],
    ...     ),
    ...     transformer=TransformerASR(
    ...         tgt_vocab=1, input_size=8, d_model=16, nhead=2, num_encoder_layers=2,
    ...         num_decoder_layers=0, d_ffn=32,
    ...     ),
    ... )
    >>> encoded = encoder(torch.rand(2, 16000), torch.tensor([16000, 8000]))
    >>> encoded.hidden_BTD.shape, encoded.frames_B, encoded.inputs_BTI.shape
    (torch.Size([2, 26, 16]), tensor([26, 13]), torch.Size([2, 26, 32]))
    >>> encoder.frame_times(2)
    array([0.015, 0.055])
    """

    feature_parts = ("compute_features", "normalize")
    context_seconds = 8.0

    def __init__(
        self,
        compute_features: Any,
        normalize: torch.nn.Module,
        front_end: torch.nn.Module,
        transformer: torch.nn.Module,
        stack: int = 4,
    ) -> None:
        super().__init__()
        if isinstance(transformer, TransformerASR):
            transformer = EncoderWrapper(transformer)
        self.compute_features = compute_features
        self.normalize = normalize
        self.front_end = front_end
        self.transformer = transformer
        self.stack = stack
        self.sample_rate = compute_features.compute_STFT.sample_rate
        self.hop = compute_features.compute_STFT.hop_length
        self.eval()
        self._measure()
        self.train()

    def _measure(self) -> None:
        """Tries the modules on two seconds of silence, and sets the sizes that follow."""
        stack, num_samples = self.stack, 2 * self.sample_rate
        wavs_BL = torch.zeros(1, num_samples)
        feats_BTF = try_modules("compute_features", self.compute_features, wavs_BL)
        if feats_BTF.shape[1] != (expected := num_samples // self.hop + 1):
            raise ValueError(
                f"compute_features: {num_samples} samples make {feats_BTF.shape[1]} frames, but "
                f"{expected} are needed, centred on every {self.hop} samples; set "
                f"compute_features: to SpeechBrain's Fbank or MFCC"
            )
        feats_BTF = pad_to_stacks(feats_BTF, torch.tensor([feats_BTF.shape[1]]), stack)
        self.num_features = self.noise_dim = feats_BTF.shape[2]
        self.input_dim = self.num_features * stack
        self._check_normalize()
        steps = try_modules("front_end", self.front_end, feats_BTF).shape[1]
        if steps * stack != feats_BTF.shape[1]:
            raise ValueError(
                f"front_end and stack do not fit: of {feats_BTF.shape[1]} frames the front_end "
                f"makes {steps} steps, the targets are {feats_BTF.shape[1] // stack} stacks of "
                f"{stack}; set stack: to the product of the front_end's strides"
            )
        self.stacks_ahead = stacks_ahead(self.front_end, self.num_features, stack)
        frames_B = torch.tensor([feats_BTF.shape[1]])
        hidden_BSD = try_modules(
            "front_end and transformer", self.encode_features, feats_BTF, frames_B
        )
        self.dim = hidden_BSD.shape[2]

    def _check_normalize(self) -> None:
        if isinstance(self.normalize, InputNormalization):
            self.normalize.allocate(self.num_features)
        elif isinstance(self.normalize, speechbrain_features.InputNormalization):
            if self.normalize.norm_type == "global":
                raise ValueError(
                    "normalize: no state_dict has the statistics of SpeechBrain's "
                    "InputNormalization (1.1.2), so no checkpoint would; set normalize: "
                    "!new:brainquant.models.InputNormalization, which has the same arguments"
                )

    @override
    def forward(
        self,
        wavs_BL: torch.Tensor,
        lengths_B: torch.Tensor,
        mask_BT: torch.Tensor | None = None,
        noise_BTF: torch.Tensor | None = None,
    ) -> Encoded:
        """Encodes.

        Arguments
        ---------
        wavs_BL : torch.Tensor
            Waveforms, shape (batch, samples).
        lengths_B : torch.Tensor
            Samples of each, on the host or on the device of the waveforms.
        mask_BT : torch.Tensor or None
            BoolTensor, True for each feature frame that ``noise_BTF`` replaces. The frames are
            those of ``stack * count_frames(samples)``.
        noise_BTF : torch.Tensor or None
            Shape (batch, feature frames, features).

        Returns
        -------
        encoded : Encoded
            ``inputs_BTI`` are not masked.
        """
        feats_BTF, frames_B = self.features(wavs_BL, lengths_B)
        inputs_BSI = stack_frames(feats_BTF, self.stack)
        if mask_BT is not None and noise_BTF is not None:
            feats_BTF = torch.where(mask_BT[..., None], noise_BTF, feats_BTF)
        hidden_BSD = self.encode_features(feats_BTF, frames_B)
        steps_B = to_device(self.count_frames(lengths_B), wavs_BL.device)
        return Encoded(hidden_BSD, steps_B, inputs_BSI)

    def features(
        self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised features in whole stacks, zeros after each utterance, and their frames."""
        feats_BTF = self.compute_features(wavs_BL)
        frames_B = self.count_feature_frames(lengths_B)
        valid_B = to_device(frames_B, feats_BTF.device)
        feats_BTF = self.normalize(feats_BTF, relative_lengths(valid_B, feats_BTF.shape[1]))
        return pad_to_stacks(feats_BTF, valid_B, self.stack), frames_B

    @override
    def encode_features(self, feats_BTF: torch.Tensor, frames_B: torch.Tensor) -> torch.Tensor:
        """Outputs for features in whole stacks, shape (batch, stacks, dim)."""
        hidden_BSD = self.steps(feats_BTF)
        steps_B = (frames_B + self.stack - 1) // self.stack
        return self.transformer(
            hidden_BSD, to_device(steps_B / hidden_BSD.shape[1], hidden_BSD.device)
        )

    def steps(self, feats_BTF: torch.Tensor) -> torch.Tensor:
        """What the Transformer reads: the steps of the front end, one for each whole stack."""
        num_stacks = feats_BTF.shape[1] // self.stack
        if self.stacks_ahead:
            feats_BTF = F.pad(feats_BTF, (0, 0, 0, self.stacks_ahead * self.stack))
        return self.front_end(feats_BTF).flatten(2)[:, :num_stacks]

    @override
    def checkpoint_activations(self) -> None:
        super().checkpoint_activations()
        checkpoint_activations([self.front_end])

    @override
    def in_pieces(self) -> BestRQPieces:
        return BestRQPieces(self)

    @override
    def quantiser_inputs(
        self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stacks of features, (batch, stacks, input dim), and the whole stacks of each."""
        feats_BTF, frames_B = self.features(wavs_BL, lengths_B)
        return stack_frames(feats_BTF, self.stack), frames_B // self.stack

    @override
    def count_feature_frames(self, num_samples: Any) -> Any:
        return num_samples // self.hop + 1

    @override
    def samples_of_frames(self, num_frames: int) -> int:
        return (num_frames - 1) * self.hop

    @override
    def count_frames(self, num_samples: Any) -> Any:
        return -(-self.count_feature_frames(num_samples) // self.stack)

    @override
    def frame_times(self, num_frames: int) -> np.ndarray:
        hop = self.hop / self.sample_rate
        return (np.arange(num_frames) + 0.5) * self.stack * hop - hop / 2

    @property
    @override
    def min_samples(self) -> int:
        return 1

    @property
    @override
    def stride(self) -> int:
        return self.stack * self.hop
