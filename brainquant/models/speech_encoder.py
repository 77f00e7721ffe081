"""The interface of every speech encoder.

Shape suffixes: B batch, L samples, T encoder frames, D dim, I input dim of the quantiser.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from typing_extensions import Self, override

from .checkpointing import checkpoint_activations
from .layers import has_parameters
from .long_features import FramesInPieces

LISTS = (torch.nn.ModuleList, torch.nn.Sequential)  # of layers
Result = TypeVar("Result")


class Encoded(NamedTuple):
    """The result of a forward of an encoder, all of it on the device of the waveforms."""

    hidden_BTD: torch.Tensor  # outputs of the last layer
    frames_B: torch.Tensor  # valid encoder frames of each utterance
    inputs_BTI: torch.Tensor  # inputs of the quantiser
    penalty: torch.Tensor | None = None  # of the extractor's activations (wav2vec 2.0)


class LastLayerReached(Exception):
    """Ends a forward after the last layer that is wanted."""


class SpeechEncoder(torch.nn.Module):
    """Encodes waveforms: features, their normalisation, a Transformer, and times of frames.

    One forward serves pretraining, fine-tuning and evaluation. Several ranks wrap the whole
    encoder into DistributedDataParallel, so a training step calls that forward only. A subclass
    sets the attributes and has the submodule ``transformer``.

    Attributes
    ----------
    sample_rate : int
        Samples per second of the waveforms.
    dim : int
        Size of the outputs.
    input_dim : int
        Size of the quantiser's inputs.
    lacks_weights : bool
        Whether the encoder was built without its weights and waits for a checkpoint.
    origin : str
        The model that it continues, for the log; "" for an encoder that the YAML describes.
    stack : int
        Feature frames of one encoder frame. Masks are drawn over feature frames.
    noise_dim : int or None
        Size of the noise that a forward takes for its masked feature frames; None: it takes none.
    context_seconds : float
        Audio that a window of a long recording has on both sides, see docs/how_to/long_audio.md.
    reads_front_end : str
        The submodule whose first input is what the front end makes of the audio.
    """

    sample_rate: int
    dim: int
    input_dim: int
    lacks_weights: bool = False
    origin: str = ""
    stack: int = 1
    noise_dim: int | None = None
    context_seconds: float
    reads_front_end: str = "transformer"
    used_if_masked: tuple[str, ...] = ()  # parameters that only a masked forward uses
    feature_parts: tuple[str, ...] = ()  # what makes the features that ``encode_features`` reads
    is_pretrained = False  # after ``prepare_finetuning``

    def quantiser_inputs(
        self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs of the quantiser, (batch, frames, input dim), and the valid frames of each."""
        raise NotImplementedError

    def encode_features(self, feats_BTF: torch.Tensor, frames_B: torch.Tensor) -> torch.Tensor:
        """Outputs for what ``in_pieces`` makes ready, shape (batch, encoder frames, dim)."""
        raise NotImplementedError

    def in_pieces(self) -> FramesInPieces:
        """Makes features of a waveform of any length piece by piece."""
        raise NotImplementedError

    def count_frames(self, num_samples: Any) -> Any:
        """Encoder frames of utterances of so many samples: an int for an int, or a LongTensor."""
        raise NotImplementedError

    def count_feature_frames(self, num_samples: Any) -> Any:
        """Feature frames of utterances of so many samples, an int or a LongTensor."""
        return self.count_frames(num_samples)

    def samples_of_frames(self, num_frames: int) -> int:
        """Samples of the shortest audio that makes so many feature frames."""
        return self.min_samples + (num_frames - 1) * self.stride

    def frame_times(self, num_frames: int) -> np.ndarray:
        """Seconds from the start of the audio to the middle of each encoder frame."""
        raise NotImplementedError

    @property
    def min_samples(self) -> int:
        """Samples of the shortest audio that makes a frame."""
        raise NotImplementedError

    @property
    def stride(self) -> int:
        """Samples from one encoder frame to the next."""
        raise NotImplementedError

    # ---- layers ----------------------------------------------------------------------------

    @property
    def layers(self) -> torch.nn.ModuleList | torch.nn.Sequential:
        """The layers of the Transformer, from the lowest to the last."""
        return self._layers_and_owner()[0]

    def checkpoint_activations(self) -> None:
        """Trains in less memory, and takes longer: the backward computes activations again.

        Here those of the layers but the last, which the backward needs at once, while it has
        nothing else. Outputs and gradients stay the same.
        """
        checkpoint_activations(list(self.layers)[:-1])

    def _layers_and_owner(self) -> tuple[torch.nn.ModuleList | torch.nn.Sequential, Any]:
        for module in self.get_submodule("transformer").modules():
            if isinstance(layers := getattr(module, "layers", None), LISTS):
                return layers, module
        raise ValueError(
            f"transformer: no part of {type(self.transformer).__name__} has an attribute layers, a "
            f"torch.nn.ModuleList; its layers cannot be read or trained at rates of their own"
        )

    def layer_outputs(
        self,
        wavs_BL: torch.Tensor,
        lengths_B: torch.Tensor,
        layers: Sequence[int] | None = None,
    ) -> list[torch.Tensor]:
        """Outputs of layers for unmasked audio, shape (batch, frames, dim) each.

        Arguments
        ---------
        wavs_BL : torch.Tensor
            Waveforms, shape (batch, samples).
        lengths_B : torch.Tensor
            Samples of each.
        layers : sequence of int or None
            Layers, counted from 1, in the order of the result; those above the highest are not
            computed. None: all; then the encoder's own forward comes to its end.

        Raises
        ------
        ValueError
            If there is no such layer.
        """
        wanted = range(1, len(self.layers) + 1) if layers is None else layers
        return self.outputs_of(wanted, self, wavs_BL, lengths_B)

    def front_end_and_layers(
        self, wavs_BL: torch.Tensor, lengths_B: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What the front end makes of unmasked audio, (batch, frames, channels), and all layers."""
        read = []
        reader = self.get_submodule(self.reads_front_end)
        hook = reader.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
        try:
            layers = self.layer_outputs(wavs_BL, lengths_B)
        finally:
            hook.remove()
        return read[0], layers

    def outputs_of(
        self, layers: Sequence[int], function: Callable[..., Any], *inputs: Any
    ) -> list[torch.Tensor]:
        """Outputs of layers while a function runs, which ends after the highest of them.

        Arguments and errors are those of ``layer_outputs``; the function runs the Transformer.
        """
        if unknown := [layer for layer in layers if not 0 < layer <= len(self.layers)]:
            raise ValueError(
                f"there is no layer {unknown[0]}; the encoder has the layers 1 to "
                f"{len(self.layers)}"
            )
        outputs: dict[int, torch.Tensor] = {}

        def keep(layer: int, output: Any) -> None:
            outputs[layer] = output[0] if isinstance(output, tuple) else output
            if layer == max(layers) < len(self.layers):
                raise LastLayerReached

        hooks = [
            self.layers[layer - 1].register_forward_hook(
                lambda module, inputs, output, layer=layer: keep(layer, output)
            )
            for layer in set(layers)
        ]
        try:
            function(*inputs)
        except LastLayerReached:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return [outputs[layer] for layer in layers]

    def parameters_by_layer(self) -> list[list[torch.nn.Parameter]]:
        """Trainable parameters by layer, for learning rates that differ by layer.

        The first group has all that is below the layers. A module that follows the last layer,
        such as a norm, is in the last group.
        """
        layers, owner = self._layers_and_owner()
        depth_of = {id(p): len(layers) for p in owner.parameters()}
        for depth, layer in enumerate(layers, start=1):
            depth_of.update({id(p): depth for p in layer.parameters()})
        groups: list[list[torch.nn.Parameter]] = [[] for _ in range(len(layers) + 1)]
        for parameter in self.parameters():
            if parameter.requires_grad:
                groups[depth_of.get(id(parameter), 0)].append(parameter)
        return groups

    # ---- fine-tuning -----------------------------------------------------------------------

    def prepare_finetuning(self) -> Self:
        """Fixes what fine-tuning must not change or cannot train; gives the encoder back.

        Parts without parameters stay in evaluation mode, so a normalisation keeps the statistics
        of the pretraining. Parameters that only masked audio uses are frozen, because
        DistributedDataParallel would wait for their gradients.
        """
        self.is_pretrained = True
        for name in self.used_if_masked:
            self.get_parameter(name).requires_grad_(False)
        return self.train(self.training)

    @override
    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.is_pretrained:
            for part in parts_without_parameters(self).values():
                part.eval()
        return self

    @override
    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.lacks_weights = False


def parts_without_parameters(encoder: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The submodules of an encoder that are not trained, such as a normalisation, by name."""
    return {name: part for name, part in encoder.named_children() if not has_parameters(part)}


def copy_that_normalises(encoder: SpeechEncoder) -> SpeechEncoder:
    """A copy with the same parameters, whose normalisation learns statistics.

    Before the first step it needs them, while that of the training has to see each clip only once.
    """
    encoder = copy.deepcopy(encoder, {id(p): p for p in encoder.parameters()}).eval()
    for part in parts_without_parameters(encoder).values():
        part.train()
    return encoder


@torch.no_grad()
def try_modules(names: str, function: Callable[..., Result], *inputs: Any) -> Result:
    """The result of a function of modules; a ValueError names these if their sizes do not fit.

    Example
    -------
    >>> try_modules("head", torch.nn.Linear(3, 1), torch.zeros(2))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: head: the sizes do not fit (...); correct them in your YAML
    """
    try:
        return function(*inputs)
    except torch.OutOfMemoryError:
        raise
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{names}: the sizes do not fit ({' '.join(str(error).split())}); correct them in your "
            f"YAML"
        ) from error
