"""What the quantiser of a masked prediction reads: log-mel features, or a layer of the first model.

Shape suffixes: B batch, L samples, T encoder frames, S feature frames, F features, I input dim of
the quantiser.
"""

from __future__ import annotations

import torch
from speechbrain.lobes.features import Fbank
from typing_extensions import override

from ..functional.precision import full_precision
from ..functional.transfer import to_device
from ..masking import lengths_to_mask
from ..models.features import normalise_utterances, stack_frames
from ..models.frozen_layer import FrozenLayer
from ..models.speech_encoder import SpeechEncoder

HOP = 10  # milliseconds


class Targets(torch.nn.Module):
    """Makes the inputs of a quantiser of waveforms, at the frames of an encoder.

    Each channel has mean zero and variance one over each utterance, as the features of BEST-RQ do.
    The inputs for a clip do not depend on the clips beside it.

    Attributes
    ----------
    input_dim : int
        Size of the quantiser's inputs.
    """

    input_dim: int

    @override
    @torch.no_grad()
    def forward(
        self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor, num_frames: int
    ) -> torch.Tensor:
        """Inputs of the quantiser.

        Arguments
        ---------
        wavs_BL : torch.Tensor
            Waveforms, shape (batch, samples).
        lengths_B : torch.Tensor
            Samples of each, on the host or on the device of the waveforms.
        num_frames : int
            Encoder frames of the padded batch.

        Returns
        -------
        inputs_BTI : torch.Tensor
            Float32, shape (batch, encoder frames, input_dim), zeros after each clip.
        """
        lengths_B = to_device(lengths_B, wavs_BL.device)
        wavs_BL = wavs_BL.float() * lengths_to_mask(lengths_B, wavs_BL.shape[1])
        with full_precision(wavs_BL.device):
            inputs_BTI = self.frames(wavs_BL, lengths_B, num_frames)
            return normalise_utterances(inputs_BTI, self.count_frames(lengths_B))

    def frames(
        self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor, num_frames: int
    ) -> torch.Tensor:
        """Frames that are not normalised yet; waveforms are zero after each clip."""
        raise NotImplementedError

    def count_frames(self, num_samples: torch.Tensor) -> torch.Tensor:
        """Encoder frames of utterances of so many samples."""
        raise NotImplementedError


class LogMelTargets(Targets):
    """Log-mel features of 10 ms, those of an encoder frame side by side.

    They are SpeechBrain's ``Fbank``, as in the recipes of BEST-RQ. Their windows of 25 ms lie
    around the middle of what the encoder frame reads.

    Arguments
    ---------
    sample_rate : int
        Samples per second of the waveforms.
    field : int
        Samples that an encoder frame reads.
    stride : int
        Samples from one encoder frame to the next, a multiple of 10 ms.
    n_mels : int
        Features of 10 ms.

    Raises
    ------
    ValueError
        If the stride is not a multiple of 10 ms.

    Example
    -------
    >>> targets = LogMelTargets(n_mels=8)
    >>> targets(torch.rand(2, 16000), torch.tensor([16000, 8000]), 49).shape
    torch.Size([2, 49, 16])
    """

    def __init__(
        self, sample_rate: int = 16000, *, field: int = 400, stride: int = 320, n_mels: int = 80
    ) -> None:
        super().__init__()
        self.hop = round(HOP * sample_rate / 1000)
        if stride % self.hop:
            raise ValueError(
                f"model: its frames are {stride} samples apart, no multiple of {self.hop}, the "
                f"10 ms of log-mel features; set target_layer: to a layer of the model"
            )
        self.field = field
        self.stride = stride
        self.stack = stride // self.hop
        self.input_dim = n_mels * self.stack
        self.compute_features = Fbank(sample_rate=sample_rate, n_mels=n_mels, hop_length=HOP)

    @override
    def frames(
        self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor, num_frames: int
    ) -> torch.Tensor:
        # Fbank centres its windows on every `hop` samples, from the first sample on. The first
        # window that is wanted has this middle; zeros before the audio move it to such a sample.
        first = self.field // 2 - (self.stack - 1) * self.hop // 2
        unwanted = -(-first // self.hop)
        missing = num_frames * self.stride + self.field - wavs_BL.shape[1]
        padding = unwanted * self.hop - first, max(0, missing)
        feats_BSF = self.compute_features(torch.nn.functional.pad(wavs_BL, padding))
        return stack_frames(feats_BSF[:, unwanted:][:, : num_frames * self.stack], self.stack)

    @override
    def count_frames(self, num_samples: torch.Tensor) -> torch.Tensor:
        return ((num_samples - self.field) // self.stride + 1).clamp(min=0)


class LayerTargets(Targets):
    """Outputs of a layer of a frozen encoder, as HuBERT's later iterations read them.

    The encoder is held as ``FrozenLayer`` holds it.

    Arguments
    ---------
    encoder : SpeechEncoder
        The encoder of a model of transformers. It belongs to this object from now on.
    layer : int
        Its layer, counted from 1.

    Raises
    ------
    ValueError
        If there is no such layer.

    Example
    -------
    >>> from brainquant.huggingface.encoder import HuggingFaceEncoder
    >>> from brainquant.huggingface.library import import_transformers
    >>> transformers = import_transformers()
    >>> config = transformers.HubertConfig(
    ...     hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
    ...     conv_dim=[8] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    ... )
    >>> targets = LayerTargets(HuggingFaceEncoder(transformers.HubertModel(config)), layer=2)
    >>> targets(torch.rand(2, 16000), torch.tensor([16000, 8000]), 49).shape
    torch.Size([2, 49, 16])
    >>> len(targets.encoder.layers), len(targets.state_dict())
    (2, 0)
    """

    def __init__(self, encoder: SpeechEncoder, layer: int) -> None:
        super().__init__()
        if not 0 < layer <= len(encoder.layers):
            raise ValueError(
                f"target_layer must be from 1 to {len(encoder.layers)}, the layers of the model, "
                f"or null for log-mel features; got {layer}"
            )
        self.frozen = FrozenLayer(encoder, layer)
        self.input_dim = encoder.dim

    @property
    def encoder(self) -> SpeechEncoder:
        """The frozen encoder."""
        return self.frozen.encoder

    @override
    def frames(
        self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor, num_frames: int
    ) -> torch.Tensor:
        return self.frozen(wavs_BL, lengths_B)

    @override
    def count_frames(self, num_samples: torch.Tensor) -> torch.Tensor:
        return self.encoder.count_frames(num_samples)
