"""Codebooks of an online teacher: one for each of its layers, moving as the layers do."""

import torch
from typing_extensions import Self, override

from .base import as_float, check_positive
from .codebooks import MovingCodebooks


class OnlineCodebooks(MovingCodebooks):
    """Nearest codes of parts of a frame, in one codebook for each part.

    The targets of DinoSR (Liu et al., https://arxiv.org/abs/2305.10005): the parts of a frame are
    the outputs of a teacher's layers, side by side, and each layer has a codebook that follows the
    mean of the outputs that choose a code. See ``MovingCodebooks`` for how they move.

    Arguments
    ---------
    input_dim : int
        Size of a frame: ``groups`` times the size of a layer.
    num_vars : int
        Codes of each codebook.
    groups : int
        Codebooks, one for each layer.
    decay : float
        Share of the old average in the new one.
    revive_below : float
        A code is dead if its average count is below this share of the mean count; a frame then
        replaces it. 0, as in the paper, never replaces a code.
    seed : int
        Seeds the first codebooks, k-means, and the frames that replace dead codes.

    Raises
    ------
    ValueError
        If a size is not positive, if input_dim is not a multiple of groups, if decay or
        revive_below is not from 0 to below 1, or if the size of a frame is not input_dim.

    Example
    -------
    >>> quantiser = OnlineCodebooks(6, 4, 2)
    >>> layers = torch.randn(1, 4, 6).repeat(1, 10, 1)  # four frames, ten times each
    >>> _ = quantiser(layers)  # the first step: its k-means finds the four
    >>> codes = quantiser.encode(layers)
    >>> codes.shape, codes[0, :, 0].unique(return_counts=True)[1]
    (torch.Size([1, 40, 2]), tensor([10, 10, 10, 10]))
    """

    def __init__(
        self,
        input_dim: int,
        num_vars: int,
        groups: int,
        *,
        decay: float = 0.9,
        revive_below: float = 0.1,
        seed: int = 0,
    ):
        input_dim, num_vars, groups = check_positive(
            input_dim=input_dim, num_vars=num_vars, groups=groups
        )
        if input_dim % groups:
            raise ValueError(
                f"input_dim must be a multiple of groups, got input_dim={input_dim}, "
                f"groups={groups}; set groups: under the quantiser in your YAML"
            )
        super().__init__(
            input_dim,
            num_vars,
            groups,
            input_dim,
            decay=decay,
            revive_below=revive_below,
            seed=seed,
        )
        self.frozen = False

    @property
    @override
    def moves(self) -> bool:
        """Whether a forward moves the codebooks: in training, unless the quantiser is frozen."""
        return self.training and not self.frozen

    @override
    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freezes the codebooks, or frees them: there are no parameters that would say so."""
        self.frozen = not requires_grad
        return super().requires_grad_(requires_grad)

    @override
    def _project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = as_float(x, self.input_dim).flatten(0, 1)
        return x.unflatten(1, (self.num_codebooks, -1)), torch.isfinite(x).all(-1)
