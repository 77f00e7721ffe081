"""A trained encoder with its quantiser: what people hold after the training.

Shape suffixes: B batch, L samples, T encoder frames, D dim, G codebooks, I quantiser's input dim.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ..functional.transfer import to_device
from ..models import SpeechEncoder, quicken
from ..quantisers import KMeansQuantizer, Quantiser
from .batches import check_batch, cut
from .kmeans_files import fitted_layer
from .long_audio import Stretch, encode_long, encode_stream


class Hidden(NamedTuple):
    """Hidden states, with zeros after the end of each clip."""

    hidden: Any  # (batch, frames, dim); a list of such tensors if layers were asked for
    frames_B: torch.Tensor  # valid frames of each clip


class Codes(NamedTuple):
    """Codes of the quantiser, with -1 after the end of each clip."""

    codes_BTG: torch.Tensor
    frames_B: torch.Tensor  # valid frames of each clip


class Units(NamedTuple):
    """Units of a k-means, with -1 after the end of each clip."""

    units_BT: torch.Tensor
    frames_B: torch.Tensor  # valid frames of each clip


class PretrainedEncoder(torch.nn.Module):
    """A trained encoder: hidden states of its layers, and discrete codes and units.

    A clip gets the same from any batch, whatever the clips beside it. ``load_pretrained`` makes
    one.

    Arguments
    ---------
    encoder : SpeechEncoder
        The encoder, of the class that was trained. ``quicken`` changes its layers, so that they
        never read the padding.
    quantiser : Quantiser or None
        Made its targets. None if it is not known, as after fine-tuning.
    step : int or None
        Optimiser steps that it was trained for, if known.
    description : Mapping
        What the modules are made of, as data; part of the fingerprint.

    Attributes
    ----------
    encoder, quantiser, step : object
        As the arguments.
    kmeans : torch.nn.ModuleDict
        Fitted k-means by layer, from ``add_kmeans``.

    Example
    -------
    >>> from speechbrain.lobes.models import wav2vec
    >>> from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
    >>> from brainquant import RandomProjectionQuantizer
    >>> from brainquant.models import Wav2Vec2Encoder, Wav2Vec2Extractor
    >>> conformer = ConformerEncoder(2, 16, 32, 2, attention_type="regularMHA")
    >>> modules = Wav2Vec2Extractor(out_channels=[8] * 7), wav2vec.EncoderWrapper(8, 16, conformer)
    >>> quantiser = RandomProjectionQuantizer(8, 4, 32, seed=0)
    >>> encoder = PretrainedEncoder(Wav2Vec2Encoder(*modules), quantiser)
    >>> wavs, lengths = torch.rand(2, 16000), torch.tensor([16000, 8000])
    >>> hidden, frames = encoder(wavs, lengths)
    >>> hidden.shape, frames
    (torch.Size([2, 48, 16]), tensor([48, 23]))
    >>> (first, second), _ = encoder(wavs, lengths, layers=[1, 2])
    >>> alone, _ = encoder(wavs[1:, :8000])
    >>> bool((hidden[1, :23] - alone[0]).abs().max() < 1e-5)
    True
    >>> encoder.codes(wavs, lengths).codes_BTG[1, 22:25]
    tensor([[...],
            [-1],
            [-1]])
    >>> encoder.frame_rate, encoder.num_codebooks, encoder.codebook_size
    (50.0, 1, 32)
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        quantiser: Quantiser | None = None,
        *,
        step: int | None = None,
        description: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.quantiser = quantiser
        self.step = step
        self.description = dict(description or {})
        self.kmeans = torch.nn.ModuleDict()
        quicken(self.encoder)  # SpeechBrain's own layers read the padding
        self.eval()

    # ---- sizes -----------------------------------------------------------------------------

    @property
    def sample_rate(self) -> int:
        """Samples per second of the waveforms."""
        return self.encoder.sample_rate

    @property
    def frame_rate(self) -> float:
        """Encoder frames per second."""
        return self.sample_rate / self.encoder.stride

    @property
    def dim(self) -> int:
        """Size of a hidden state."""
        return self.encoder.dim

    @property
    def num_layers(self) -> int:
        """Layers of the Transformer."""
        return len(self.encoder.layers)

    @property
    def num_codebooks(self) -> int:
        """Codes of a frame; 0 without a quantiser."""
        return 0 if self.quantiser is None else self.quantiser.num_codebooks

    @property
    def codebook_size(self) -> int:
        """Codes of each codebook; 0 without a quantiser."""
        return 0 if self.quantiser is None else self.quantiser.codebook_size

    @property
    def min_samples(self) -> int:
        """Samples of the shortest clip that has a frame."""
        return self.encoder.min_samples

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.encoder.parameters()).device

    def count_frames(self, num_samples: int) -> int:
        """Encoder frames of a clip of so many samples."""
        return self.encoder.count_frames(num_samples)

    def frame_times(self, num_frames: int) -> np.ndarray:
        """Seconds from the start of a clip to the middle of each encoder frame."""
        return self.encoder.frame_times(num_frames)

    # ---- features, codes and units ---------------------------------------------------------

    def forward(
        self,
        wavs_BL: torch.Tensor,
        lengths_B: torch.Tensor | None = None,
        *,
        layers: Sequence[int] | None = None,
    ) -> Hidden:
        """Hidden states.

        Arguments
        ---------
        wavs_BL : torch.Tensor
            Waveforms at ``sample_rate``, shape (batch, samples).
        lengths_B : torch.Tensor or None
            Samples of each, a LongTensor. None: all are whole.
        layers : sequence of int or None
            k is the output of layer k, from 1; 0 is the input of the quantiser. Layers above the
            highest are not computed. None: the output of the encoder, which is that of the last
            layer after the norm that follows it.

        Returns
        -------
        hidden : Hidden
            A tensor (batch, frames, dim), or a list of them if there are ``layers``; and the valid
            frames of each clip. A clip that is too short for a frame has 0.

        Raises
        ------
        ValueError
            If there is no such layer, or waveforms and lengths do not fit.
        """
        wavs_BL, lengths_B = check_batch(wavs_BL, lengths_B, self.encoder)
        frames_B = to_device(self.encoder.count_frames(lengths_B), wavs_BL.device)
        if layers is None:
            return Hidden(cut(self.encoder(wavs_BL, lengths_B).hidden_BTD, frames_B, 0.0), frames_B)
        above = [layer for layer in layers if layer != 0]
        outputs = self.encoder.layer_outputs(wavs_BL, lengths_B, above) if above else []
        by_layer = dict(zip(above, outputs))
        if 0 in layers:
            by_layer[0], _ = self.encoder.quantiser_inputs(wavs_BL, lengths_B)
        return Hidden([cut(by_layer[layer], frames_B, 0.0) for layer in layers], frames_B)

    @torch.no_grad()
    def codes(self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor | None = None) -> Codes:
        """Codes of the model's own quantiser.

        Arguments
        ---------
        wavs_BL, lengths_B : torch.Tensor
            As in ``forward``.

        Returns
        -------
        codes : Codes
            LongTensor (batch, frames, codebooks), and the valid frames of each clip: for BEST-RQ
            those that the audio fills.

        Raises
        ------
        ValueError
            If the model has no quantiser.
        """
        if self.quantiser is None:
            raise ValueError(
                "this model has no quantiser, so it has no codes; fit a k-means to one of its "
                "layers with brainquant kmeans, and use units"
            )
        x_BTI, frames_B = self.encoder.quantiser_inputs(
            *check_batch(wavs_BL, lengths_B, self.encoder)
        )
        frames_B = to_device(frames_B, x_BTI.device)
        return Codes(cut(self.quantiser.encode(x_BTI), frames_B, -1), frames_B)

    def add_kmeans(self, path: str | os.PathLike[str], *, layer: int | None = None) -> int:
        """Adds a k-means that ``brainquant kmeans`` has fitted, for ``units``.

        Arguments
        ---------
        path : str or os.PathLike
            The .safetensors.
        layer : int or None
            The layer that it was fitted to, if the file does not say it.

        Returns
        -------
        layer : int

        Raises
        ------
        ValueError
            If the file is no k-means of such a layer, or was fitted to another model.
        """
        layer = fitted_layer(path, layer, self.num_layers, self.fingerprint())
        dim = self.dim if layer else self.encoder.input_dim
        self.kmeans[str(layer)] = KMeansQuantizer(dim, os.fspath(path)).to(self.device).eval()
        return layer

    @torch.no_grad()
    def units(
        self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor | None = None, *, layer: int
    ) -> Units:
        """Units: the nearest centroid of each hidden state of a layer.

        Arguments
        ---------
        wavs_BL, lengths_B : torch.Tensor
            As in ``forward``.
        layer : int
            A layer to which ``add_kmeans`` has added a k-means.

        Returns
        -------
        units : Units
            LongTensor (batch, frames), and the valid frames of each clip.

        Raises
        ------
        ValueError
            If there is no k-means for the layer.
        """
        if str(layer) not in self.kmeans:
            raise ValueError(
                f"there is no k-means for layer {layer}; add one with add_kmeans, which takes a "
                f"file of brainquant kmeans --layer {layer}"
            )
        (hidden_BTD,), frames_B = self(wavs_BL, lengths_B, layers=[layer])
        kmeans = self.kmeans[str(layer)]
        return Units(cut(kmeans(hidden_BTD), frames_B, -1), frames_B)

    # ---- long audio ------------------------------------------------------------------------

    def encode_file(
        self,
        path: str | os.PathLike[str],
        *,
        layers: Sequence[int] | None = None,
        context_seconds: float | None = None,
    ) -> Any:
        """Hidden states of an audio file of any length, in bounded memory.

        A file of up to 30 s gives what ``forward`` gives. A longer one is encoded in windows, see
        ``brainquant.inference.long_audio.encode_long``. A file of another rate is resampled, and
        its channels are mixed.

        Arguments
        ---------
        path : str or os.PathLike
            Any format that libsndfile reads or, with ``brainquant[codecs]``, ffmpeg.
        layers : sequence of int or None
            As in ``forward``.
        context_seconds : float or None
            Audio on both sides of a window. None: what was measured for this kind of encoder.

        Returns
        -------
        hidden : torch.Tensor or list of torch.Tensor
            Shape (frames, dim), on the CPU; a list if there are ``layers``.

        Raises
        ------
        ValueError
            If the file cannot be read, or there is no such layer.
        """
        return encode_long(self.encoder, path, layers=layers, context_seconds=context_seconds)

    def encode_stream(
        self,
        blocks: Iterable[Any],
        *,
        layers: Sequence[int] | None = None,
        context_seconds: float | None = None,
    ) -> Iterator[Stretch]:
        """Hidden states of a stream of any length, as soon as what follows them has come.

        See ``brainquant.inference.long_audio.encode_stream``.

        Arguments
        ---------
        blocks : iterable of torch.Tensor or numpy.ndarray
            Pieces of the waveform of any length, one-dimensional, of floats at ``sample_rate``.
        layers, context_seconds : object
            As in ``encode_file``.

        Returns
        -------
        stretches : iterator of Stretch
            The next hidden states, shape (frames, dim), and the number of their first frame.
        """
        return encode_stream(self.encoder, blocks, layers=layers, context_seconds=context_seconds)

    def fingerprint(self) -> str:
        """A hash of what the model is made of and of its tensors: that of its exported folder, too.

        Two models with one fingerprint give the same hidden states and codes.
        """
        digest = hashlib.sha256(json.dumps(self.description, sort_keys=True).encode())
        for part, module in (("encoder", self.encoder), ("quantiser", self.quantiser)):
            if module is None:
                continue
            for name, tensor in sorted(module.state_dict().items()):
                digest.update(f"{part}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()
