"""Vector quantiser: the codebooks are moving averages of a learned projection of the frames."""

import torch
import torch.nn.functional as F
from typing_extensions import override

from .base import as_float, check_divides, check_positive
from .codebooks import MovingCodebooks
from .moving import drawing_from_seed


class VectorQuantizer(MovingCodebooks):
    """Nearest codes of a learned projection, in codebooks that are moving averages.

    See ``MovingCodebooks`` for how they move. If it is never trained, as the target of BEST-RQ,
    it is a random codebook.

    Arguments
    ---------
    input_dim : int
        Size of a frame.
    num_vars : int
        Codes of each group.
    groups : int
        Groups (codebooks); a frame gets one code of each.
    vq_dim : int
        Size of the projected and of the quantised vector, the groups' vectors side by side.
    decay : float
        Share of the old average in the new one.
    revive_below : float
        A code is dead if its average count is below this share of the mean count; a frame then
        replaces it. 0 never replaces a code.
    seed : int
        Seeds the first projection and codebook, k-means, and the frames that replace dead codes.

    Raises
    ------
    ValueError
        If a size is not positive, if vq_dim is not a multiple of groups, if decay or revive_below
        is not from 0 to below 1, or if the size of a frame is not input_dim.

    Example
    -------
    >>> quantiser = VectorQuantizer(16, 4, 1, 8)
    >>> x = torch.randn(1, 4, 16).repeat(1, 10, 1)  # four frames, ten times each
    >>> _ = quantiser(x)  # the first step: its k-means finds the four
    >>> output = quantiser(x, return_codes=True)
    >>> output["codes"].unique(return_counts=True)[1]
    tensor([10, 10, 10, 10])
    >>> bool(output["aux_loss"] < 1e-9)
    True
    """

    def __init__(
        self,
        input_dim: int,
        num_vars: int,
        groups: int,
        vq_dim: int,
        *,
        decay: float = 0.99,
        revive_below: float = 0.1,
        seed: int = 0,
    ):
        input_dim, num_vars, groups, vq_dim = check_positive(
            input_dim=input_dim, num_vars=num_vars, groups=groups, vq_dim=vq_dim
        )
        check_divides(vq_dim, groups)
        super().__init__(
            input_dim, num_vars, groups, vq_dim, decay=decay, revive_below=revive_below, seed=seed
        )
        with drawing_from_seed(seed):
            self.proj = torch.nn.Linear(input_dim, vq_dim)

    @property
    @override
    def vector_dtype(self) -> torch.dtype:
        return self.proj.weight.dtype

    @override
    def _project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Projected frames, and which of them are finite.

        In float64, which autocast does not change. The rounding of float32 depends on the size
        of the batch: a frame between two codes would get one or the other.
        """
        x = as_float(x, self.input_dim).flatten(0, 1).double()
        x = F.linear(x, self.proj.weight.double(), self.proj.bias.double())
        return x.unflatten(1, (self.num_codebooks, -1)), torch.isfinite(x.float()).all(-1)
