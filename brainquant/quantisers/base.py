"""The contract of a quantiser."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from ..models import SpeechEncoder


class Clips(NamedTuple):
    """The clips of a batch, for quantisers that make their codes of more than the encoder's inputs.

    Shape suffixes: B batch, L samples, T encoder frames, I input dim.
    """

    ids: Sequence[str]
    wavs_BL: torch.Tensor  # zeros after each clip
    lengths_B: torch.Tensor  # samples of each, on the host
    inputs_BTI: torch.Tensor  # the encoder's inputs for the quantiser
    valid_BT: torch.Tensor | None = None  # False for padding; None: there is none


class Quantiser(torch.nn.Module):
    """What every quantiser has and does; a Brain never asks which one it holds.

    ``brainquant.testing.check_quantiser`` checks that a quantiser keeps this contract.

    Attributes
    ----------
    input_dim : int
        Size of an input frame.
    num_codebooks : int
        Codebooks; a frame gets one code of each.
    codebook_size : int
        Codes in each codebook.
    vq_dim : int or None
        Size of the vector that ``forward`` gives for a frame; None if it gives codes only.
    curr_temp : float or None
        The temperature that ``update_temp`` sets; None if nothing anneals.
    frames_to_fit : int
        Frames of the corpus that ``fit`` needs before the first step; 0 if there is nothing to
        fit, or if it is fitted already.
    reads_inputs : bool
        Whether the codes are made of the encoder's inputs alone. If not, an encoder is used and
        given away without this quantiser.
    """

    input_dim: int
    num_codebooks: int
    codebook_size: int
    vq_dim: int | None = None
    curr_temp: float | None = None
    frames_to_fit: int = 0
    reads_inputs: bool = True

    @property
    def num_scores(self) -> int:
        """Outputs of a head that predicts the codes of a frame: one for each code."""
        return self.num_codebooks * self.codebook_size

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Codes of frames, without gradient; in float32, also under autocast.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, time, input_dim).

        Returns
        -------
        codes : torch.Tensor
            LongTensor, shape (batch, time, num_codebooks), from 0 to codebook_size - 1; -1 for
            a frame that is not finite. A tie goes to the lowest index.
        """
        raise NotImplementedError

    def read(self, clips: Clips) -> torch.Tensor:
        """What ``encode`` and ``fit`` read of the clips of a batch: here the encoder's inputs.

        Returns
        -------
        x : torch.Tensor
            Shape (batch, encoder frames, input_dim).
        """
        return clips.inputs_BTI

    def encode_clips(self, clips: Clips) -> torch.Tensor:
        """Codes of the clips of a batch, shape (batch, encoder frames, num_codebooks).

        The targets of a masked prediction. See ``encode``, which by default makes them.
        """
        return self.encode(self.read(clips))

    def check_encoder(self, encoder: SpeechEncoder) -> None:
        """Raises a ValueError if there is no code for each frame of an encoder.

        A Brain of masked prediction calls it when it is built. Here the sizes of the inputs are
        compared.
        """
        if (size := encoder.input_dim) != self.input_dim:
            raise ValueError(
                f"features and quantiser do not fit: {size // encoder.stack} features x stack "
                f"{encoder.stack} = {size}, but the quantiser's input_dim is {self.input_dim}; set "
                f"input_dim: to n_mels * stack, or to !ref <encoder.input_dim>, in your YAML"
            )

    def check_clips(self, encoder: SpeechEncoder, clips: Iterable[tuple[str, float]]) -> None:
        """Raises a ValueError if there are no codes for some clips; nothing to check by default.

        A Brain of masked prediction calls it on every rank, before the first step.

        Arguments
        ---------
        encoder : SpeechEncoder
            Encodes the clips.
        clips : iterable of (str, float)
            ID and seconds of each clip of the training and of the validation.
        """

    def forward(
        self, x: torch.Tensor, *, generator: torch.Generator | None = None, return_codes=False
    ) -> Any:
        """Quantised vectors; codes only if ``vq_dim`` is None.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, time, input_dim).
        generator : torch.Generator or None
            For all random draws in training; None is the global generator.
        return_codes : bool
            Adds to the result what training needs: ``codes``, those of ``encode``;
            ``chosen_codes``, those of the vectors (they differ from ``codes`` if noise takes part
            in the choice); ``aux_loss``, the quantiser's own loss (diversity, commitment),
            differentiable, and finite if the frames are.

        Returns
        -------
        result : dict
            ``x``: vectors, shape (batch, time, vq_dim), NaN for a frame that is not finite; their
            gradient reaches the input. ``prob_perplex``: perplexity of the mean probabilities, if
            the quantiser has probabilities.
        """
        raise NotImplementedError

    def fit(self, x: torch.Tensor) -> None:
        """Fits to the corpus what training does not change; ``frames_to_fit`` is 0 afterwards.

        Arguments
        ---------
        x : torch.Tensor
            ``frames_to_fit`` frames of the corpus, or all if it has fewer, shape (frames,
            input_dim).
        """
        raise NotImplementedError

    def update_temp(self, steps: int) -> None:
        """Sets the temperature for this number of optimiser steps; nothing by default."""

    def begin_step(self) -> None:
        """Begins an optimiser step: all forwards up to ``end_step`` belong to it.

        The Brains of this package call it. If your own training loop accumulates gradients, call
        it before the first batch of a step; a second call in the same step changes nothing.
        Without a call, each forward in training is a step of its own. By default it does nothing:
        it is for codebooks that follow the frames, see ``brainquant.quantisers.moving``.
        """

    def end_step(self) -> None:
        """Ends a step, after the step of the optimiser; every rank calls it in the same steps.

        Codebooks that follow the frames move here and nowhere else, by the frames of all batches
        of the step on all ranks. So all batches of a step see the same codebooks, and a
        ``state_dict`` between steps is complete. A step that is left out (its loss is not finite)
        ends as well; the caller then restores the buffers.
        """


def check_positive(**sizes: Any) -> list[int]:
    """The sizes as ints; integers of NumPy and torch are allowed.

    Raises
    ------
    ValueError
        If a size is not a positive integer; the error names it.

    Example
    -------
    >>> check_positive(groups=2, num_vars=torch.tensor(320))
    [2, 320]
    >>> check_positive(groups=0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: groups must be a positive integer, got 0; set groups: under the quantiser ...
    """
    numbers = []
    for key, value in sizes.items():
        try:
            numbers.append(operator.index(value))
        except TypeError:
            numbers.append(0)
        if numbers[-1] < 1 or isinstance(value, bool):
            raise ValueError(
                f"{key} must be a positive integer, got {value!r}; "
                f"set {key}: under the quantiser in your YAML"
            )
    return numbers


def check_divides(vq_dim: int, groups: int) -> None:
    """Raises a ValueError if vq_dim is not a multiple of groups."""
    if vq_dim % groups:
        raise ValueError(
            f"vq_dim must be a multiple of groups, got vq_dim={vq_dim}, groups={groups}; "
            f"set vq_dim: under the quantiser in your YAML"
        )


def make_quantiser(make: Callable[..., Any], **sizes: int) -> Quantiser:
    """Builds a quantiser from the fragment that a recipe includes and the sizes of its model.

    Arguments
    ---------
    make : callable
        A quantiser's class with some arguments bound, from a ``!name:`` node.
    **sizes : int
        The arguments that depend on the model: ``input_dim``.

    Returns
    -------
    quantiser : Quantiser

    Raises
    ------
    ValueError
        If the fragment lacks an argument, has an unknown one, or names a class that is no
        ``Quantiser``.

    Example
    -------
    >>> from functools import partial
    >>> from brainquant import RandomProjectionQuantizer
    >>> make = partial(RandomProjectionQuantizer, cb_dim=16, cb_vocab=32)
    >>> make_quantiser(make, input_dim=40).P.shape
    torch.Size([40, 16])
    """
    try:
        quantiser = make(**sizes)
    except TypeError as error:
        bound = getattr(make, "keywords", {})
        raise ValueError(
            f"the quantiser of the YAML cannot be built: {error}; it has the keys "
            f"{', '.join([*bound, *sizes])}: correct them in its fragment or its override"
        ) from error
    check_quantiser_class(quantiser)
    return quantiser


def check_quantiser_class(quantiser: object) -> None:
    """Raises a ValueError if an object is no ``Quantiser``."""
    if not isinstance(quantiser, Quantiser):
        raise ValueError(
            f"the quantiser of the YAML must be a brainquant Quantiser, got "
            f"{type(quantiser).__name__}; for SpeechBrain's own quantisers change "
            f"speechbrain.nnet.quantisers. to brainquant. in your YAML"
        )


def check_frames(x: torch.Tensor, input_dim: int) -> None:
    """Raises a ValueError if frames have another size; torch's own error does not say why."""
    if x.dim() != 3 or x.shape[-1] != input_dim:
        raise ValueError(
            f"the quantiser takes (batch, time, {input_dim}), got {tuple(x.shape)}; set "
            f"input_dim: of the quantiser to the size of your features"
        )


def as_float(x: torch.Tensor, input_dim: int) -> torch.Tensor:
    """Checks the size of frames and converts them to float32."""
    check_frames(x, input_dim)
    return x.float()
