"""What is computed for each clip: hidden states of layers, codes, or units.

Shape suffixes: B batch, L samples, T frames, D dim, G codebooks.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from ..inference import PretrainedEncoder
from ..inference.long_audio import codes_long, encode_long
from ..inference.sources import Audio

# The frames of each clip of a batch; and for each output the array of each clip
OfBatch = tuple[list[int], dict[str, list[np.ndarray]]]


class Results(Protocol):
    """What a command computes."""

    kind: str  # "encode" or "tokens", the key of FORMATS

    def prepare(self, encoder: PretrainedEncoder) -> None:
        """Checks that the model can give it, before any work."""
        ...

    def names(self) -> list[str]:
        """The outputs: each is written into a file of its own."""
        ...

    def identity(self) -> dict[str, Any]:
        """What the content depends on, beside the model and the corpus."""
        ...

    def meta(self, encoder: PretrainedEncoder, name: str) -> dict[str, Any]:
        """What the writer of an output needs to know."""
        ...

    def bytes_per_second(self, encoder: PretrainedEncoder) -> float:
        """Size of the results of a second of speech."""
        ...

    def of_batch(
        self, encoder: PretrainedEncoder, wavs_BL: torch.Tensor, lengths_B: torch.Tensor
    ) -> OfBatch:
        """Frames and arrays of each clip of a batch."""
        ...

    def of_long(self, encoder: PretrainedEncoder, audio: Audio) -> OfBatch:
        """The same of one recording of any length, in bounded memory."""
        ...


@dataclasses.dataclass
class Features:
    """Hidden states of layers, as float32, or as float16 if ``half``.

    ``layers`` None is the output of the encoder. ``pool`` "mean" gives one vector for a clip.
    """

    layers: Sequence[int] | None = None
    pool: str | None = None
    half: bool = False
    kind = "encode"

    def prepare(self, encoder: PretrainedEncoder) -> None:
        for layer in self.layers or ():
            if not 0 <= layer <= encoder.num_layers:
                raise ValueError(
                    f"--layers: there is no layer {layer}; this model has the layers 1 to "
                    f"{encoder.num_layers}, and 0 is the input of its quantiser"
                )

    def names(self) -> list[str]:
        return ["output"] if self.layers is None else [f"layer{layer}" for layer in self.layers]

    def identity(self) -> dict[str, Any]:
        layers = None if self.layers is None else list(self.layers)
        return {"layers": layers, "pool": self.pool, "half": self.half}

    def meta(self, encoder: PretrainedEncoder, name: str) -> dict[str, Any]:
        dim = encoder.encoder.input_dim if name == "layer0" else encoder.dim
        return {"pooled": self.pool is not None, "half": self.half, "dim": dim}

    def bytes_per_second(self, encoder: PretrainedEncoder) -> float:
        if self.pool:
            return 1.0
        return encoder.frame_rate * encoder.dim * len(self.names()) * (2 if self.half else 4)

    def of_batch(
        self, encoder: PretrainedEncoder, wavs_BL: torch.Tensor, lengths_B: torch.Tensor
    ) -> OfBatch:
        hidden, frames_B = encoder(wavs_BL, lengths_B, layers=self.layers)
        frames = frames_B.tolist()
        return frames, {
            name: [self._store(clip_TD[:length]) for clip_TD, length in zip(output, frames)]
            for name, output in self._named(hidden)
        }

    def of_long(self, encoder: PretrainedEncoder, audio: Audio) -> OfBatch:
        named = self._named(encode_long(encoder.encoder, audio, layers=self.layers))
        return [len(named[0][1])], {name: [self._store(hidden_TD)] for name, hidden_TD in named}

    def _named(self, hidden: Any) -> list[tuple[str, Any]]:
        return [*zip(self.names(), [hidden] if self.layers is None else hidden, strict=True)]

    def _store(self, clip_TD: torch.Tensor) -> np.ndarray:
        clip_TD = clip_TD.float()
        if self.pool and len(clip_TD):
            clip_TD = clip_TD.mean(0)
        # A copy: a view would keep the whole batch.
        return clip_TD.to(torch.float16 if self.half else torch.float32, copy=True).cpu().numpy()


@dataclasses.dataclass
class QuantiserTokens:
    """Codes of the model's own quantiser: (frames, codebooks), or (frames,) of one codebook."""

    dedup: bool = False
    kind = "tokens"

    def prepare(self, encoder: PretrainedEncoder) -> None:
        if not encoder.num_codebooks:
            raise ValueError(
                "this model has no quantiser, so it has no codes; fit a k-means to one of its "
                "layers with brainquant kmeans, and give --layer and --kmeans"
            )

    def names(self) -> list[str]:
        return ["codes"]

    def identity(self) -> dict[str, Any]:
        return {"layer": None, "kmeans": None, "dedup": self.dedup}

    def meta(self, encoder: PretrainedEncoder, name: str) -> dict[str, Any]:
        return {
            "num_codes": encoder.codebook_size,
            "num_codebooks": encoder.num_codebooks,
            "dedup": self.dedup,
        }

    def bytes_per_second(self, encoder: PretrainedEncoder) -> float:
        return 4 * encoder.frame_rate * encoder.num_codebooks

    def of_batch(
        self, encoder: PretrainedEncoder, wavs_BL: torch.Tensor, lengths_B: torch.Tensor
    ) -> OfBatch:
        codes_BTG, frames_B = encoder.codes(wavs_BL, lengths_B)
        if codes_BTG.shape[2] == 1:
            codes_BTG = codes_BTG[..., 0]
        return _valid("codes", codes_BTG, frames_B)

    def of_long(self, encoder: PretrainedEncoder, audio: Audio) -> OfBatch:
        assert encoder.quantiser is not None, "prepare has checked it"
        codes_TG = codes_long(encoder.encoder, encoder.quantiser, audio)
        codes_T = codes_TG[:, 0] if codes_TG.shape[1] == 1 else codes_TG
        return _valid("codes", codes_T[None], torch.tensor([len(codes_T)]))


@dataclasses.dataclass
class KMeansTokens:
    """The nearest centroid of each hidden state of a layer, (frames,).

    ``kmeans`` is a .safetensors of ``brainquant kmeans``. ``layer`` None is the one that it says.
    """

    layer: int | None
    kmeans: str
    dedup: bool = False
    kind = "tokens"

    def prepare(self, encoder: PretrainedEncoder) -> None:
        self.layer = encoder.add_kmeans(self.kmeans, layer=self.layer)

    def names(self) -> list[str]:
        return ["units"]

    def identity(self) -> dict[str, Any]:
        with open(self.kmeans, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        return {"layer": self.layer, "kmeans": digest, "dedup": self.dedup}

    def meta(self, encoder: PretrainedEncoder, name: str) -> dict[str, Any]:
        kmeans: Any = encoder.kmeans[str(self.layer)]
        return {"num_codes": kmeans.codebook_size, "num_codebooks": 1, "dedup": self.dedup}

    def bytes_per_second(self, encoder: PretrainedEncoder) -> float:
        return 4 * encoder.frame_rate

    def of_batch(
        self, encoder: PretrainedEncoder, wavs_BL: torch.Tensor, lengths_B: torch.Tensor
    ) -> OfBatch:
        assert self.layer is not None, "prepare has set it"
        return _valid("units", *encoder.units(wavs_BL, lengths_B, layer=self.layer))

    def of_long(self, encoder: PretrainedEncoder, audio: Audio) -> OfBatch:
        assert self.layer is not None, "prepare has set it"
        (hidden_TD,) = encode_long(encoder.encoder, audio, layers=[self.layer])
        units_BT = encoder.kmeans[str(self.layer)](hidden_TD[None].to(encoder.device))
        return _valid("units", units_BT, torch.tensor([len(hidden_TD)]))


def _valid(name: str, codes_BT: torch.Tensor, frames_B: torch.Tensor) -> OfBatch:
    """The codes of each clip, without those after its end."""
    codes, frames = codes_BT.to(torch.int32).cpu().numpy(), frames_B.tolist()
    return frames, {name: [clip[:length].copy() for clip, length in zip(codes, frames)]}


def collapse(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Repeated codes become one; returns them and the frames of each.

    Arguments
    ---------
    codes : array
        Shape (frames,) or (frames, codebooks): frames are equal if all their codes are.

    Example
    -------
    >>> collapse(np.array([5, 5, 5, 2, 5]))
    (array([5, 2, 5]), array([3, 1, 1]))
    """
    rows = codes.reshape(len(codes), -1)
    starts = np.flatnonzero(np.concatenate([[True], (rows[1:] != rows[:-1]).any(1)]))
    return codes[starts], np.diff(starts, append=len(codes))
