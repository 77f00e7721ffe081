"""The contract of a quantiser."""

import operator

import torch


class Quantiser(torch.nn.Module):
    """What every quantiser is and does; a Brain never asks which one it holds.

    ``brainquant.testing.check_quantiser`` holds a quantiser to all of it.

    Attributes
    ----------
    input_dim : int
        Size of a frame that goes in.
    num_codebooks : int
        Codes that one frame gets.
    codebook_size : int
        Codes in each codebook.
    vq_dim : int or None
        Size of the vector that ``forward`` gives for a frame; None where it gives codes only.
    curr_temp : float or None
        What ``update_temp`` sets; None where nothing anneals.
    frames_to_fit : int
        Frames of the corpus that ``fit`` asks for before the first step; 0 where there is nothing
        to be fitted, or it is fitted already.
    """

    input_dim: int
    num_codebooks: int
    codebook_size: int
    vq_dim = None
    curr_temp = None
    frames_to_fit = 0

    @property
    def num_scores(self):
        """Scores that predict the codes of a frame: those of all codebooks."""
        return self.num_codebooks * self.codebook_size

    def encode(self, x):
        """Codes of frames, in float32 whatever the autocast, without gradient.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, time, input_dim).

        Returns
        -------
        codes : torch.Tensor
            LongTensor, shape (batch, time, num_codebooks), from 0 to codebook_size - 1; -1 for
            a frame that has no code because it is not finite. A tie goes to the lowest index.
        """
        raise NotImplementedError

    def forward(self, x, *, generator=None, return_codes=False):
        """Quantised vectors, where ``vq_dim`` is not None; codes only, where it is.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, time, input_dim).
        generator : torch.Generator or None
            What anything random is drawn from in training; None is the global generator.
        return_codes : bool
            Adds to the result what training needs: ``codes``, those of ``encode``;
            ``chosen_codes``, those that the vectors are made of (the two differ where noise
            chooses); ``aux_loss``, what the quantiser itself asks to be minimised (diversity,
            commitment), differentiable, finite where the frames are.

        Returns
        -------
        result : dict
            ``x``: vectors, shape (batch, time, vq_dim), NaN for a frame that is not finite, with
            a gradient that reaches the input; ``prob_perplex``: perplexity of the mean
            probabilities, where there are any.
        """
        raise NotImplementedError

    def fit(self, x):
        """Fits what is frozen in training to the corpus; ``frames_to_fit`` is 0 after it.

        Arguments
        ---------
        x : torch.Tensor
            Frames of the corpus, as many as ``frames_to_fit`` asks for or fewer where there are
            no more, shape (frames, input_dim).
        """
        raise NotImplementedError

    def update_temp(self, steps):
        """Sets what anneals from the number of optimiser steps taken; nothing by default."""

    def begin_step(self):
        """Begins an optimiser step: all forwards up to ``end_step`` belong to it.

        The Brains of this package call it. A training loop of your own that accumulates gradients
        calls it before the first batch of a step; a second call in the same step changes nothing.
        Without a call, each forward in training is a step of its own. By default it does nothing:
        it matters where codebooks follow the frames, see ``brainquant.quantisers.moving``.
        """

    def end_step(self):
        """Ends a step, after that of the optimiser; every rank calls it, after the same steps.

        Codebooks that follow the frames move here and not before, by the frames of all batches of
        the step on all ranks. So each batch sees the codebooks that the step began with, and a
        ``state_dict`` is whole between steps. A step that is not wanted (its loss is not finite)
        ends as well; the caller then restores the buffers.
        """


def check_positive(**sizes):
    """The sizes as ints, NumPy's among them.

    Raises
    ------
    ValueError
        Where one is not a positive integer; names it.

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


def check_divides(vq_dim, groups):
    """Raises a ValueError where the groups' vectors cannot share vq_dim evenly."""
    if vq_dim % groups:
        raise ValueError(
            f"vq_dim must be a multiple of groups, got vq_dim={vq_dim}, groups={groups}; "
            f"set vq_dim: under the quantiser in your YAML"
        )


def make_quantiser(make, **sizes):
    """Builds a quantiser from the fragment that a recipe includes and the sizes of its model.

    Arguments
    ---------
    make : callable
        What a ``!name:`` node gives: a quantiser's class with some arguments bound.
    **sizes : int
        The arguments that the model decides: ``input_dim``.

    Returns
    -------
    quantiser : Quantiser

    Raises
    ------
    ValueError
        Where the fragment lacks an argument, has one that the class does not know, or names a
        class that is no ``Quantiser``.

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


def check_quantiser_class(quantiser):
    """Raises a ValueError where something is no ``Quantiser``."""
    if not isinstance(quantiser, Quantiser):
        raise ValueError(
            f"the quantiser of the YAML must be a brainquant Quantiser, got "
            f"{type(quantiser).__name__}; for SpeechBrain's own quantisers change "
            f"speechbrain.nnet.quantisers. to brainquant. in your YAML"
        )


def check_frames(x, input_dim):
    """Raises a ValueError where frames have another size, which a matmul would name less well."""
    if x.dim() != 3 or x.shape[-1] != input_dim:
        raise ValueError(
            f"the quantiser takes (batch, time, {input_dim}), got {tuple(x.shape)}; set "
            f"input_dim: of the quantiser to the size of your features"
        )


def as_float(x, input_dim):
    """The frames in float32, after a check of their size."""
    check_frames(x, input_dim)
    return x.float()
