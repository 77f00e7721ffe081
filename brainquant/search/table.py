"""Codes and frames, scaled so that float32 finds the candidates for the nearest code.

Shape suffixes: N frames, D code dim, K = D or D + 1 (the offset of a code as one more dimension),
V codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch


class Table:
    """A codebook, prepared for the search for the largest inner product plus offset.

    Arguments
    ---------
    codebook_VD : torch.Tensor
        Codes, shape (codes, dim).
    offset_V : torch.Tensor or None
        Added to the inner products, shape (codes,).
    """

    def __init__(self, codebook_VD: torch.Tensor, offset_V: torch.Tensor | None = None):
        self.codebook_VD = codebook_VD = codebook_VD.float()
        self.offset_V = None if offset_V is None else offset_V.double()
        largest = codebook_VD.abs().amax()
        self.scale = torch.where(largest == 0, 1.0, largest).double()
        # Values up to 1: no score overflows in float32.
        self.scaled_VK = codebook_VD / self.scale.float()
        if self.offset_V is not None:
            scaled_V1 = (self.offset_V / self.scale**2).float()[:, None]
            self.scaled_VK = torch.cat([self.scaled_VK, scaled_V1], 1)
        self.norm = self.scaled_VK.square().sum(1).amax().sqrt()  # of the longest code

    def codes(
        self, x_ND: torch.Tensor, search: Callable[[Frames, Table], torch.Tensor]
    ) -> torch.Tensor:
        """Codes of float64 frames; -1 for those that are not finite."""
        valid_N = torch.isfinite(x_ND).all(1)
        x_ND = torch.where(valid_N[:, None], x_ND, 0.0)
        return torch.where(valid_N, search(self.frames(x_ND), self), -1)

    def frames(self, x_ND: torch.Tensor) -> Frames:
        """The frames, and the values from which float32 finds their candidates."""
        largest_N1 = x_ND.abs().amax(1, keepdim=True)
        if self.offset_V is None:
            scale_N1 = torch.where(largest_N1 == 0, 1.0, largest_N1)
            scaled_NK = x_ND / scale_N1
        else:
            scale_N1 = torch.maximum(largest_N1, self.scale)
            scaled_NK = torch.cat([x_ND / scale_N1, self.scale / scale_N1], 1)
        K = scaled_NK.shape[1]
        bound_N = scaled_NK.square().sum(1).sqrt() * self.norm
        # A float32 inner product errs by at most (K + 3) 2**-24 of the product of the norms. The
        # slack holds two such errors, and room for the rounding of the bound itself. An all-zero
        # frame ties with every code, so no search is needed.
        slack_N = torch.where(bound_N == 0, -1.0, 2 * (K + 4) * 2.0**-24 * bound_N)
        tie_N = K * 2.0**-50 * bound_N * scale_N1[:, 0] * self.scale
        return Frames(x_ND, scaled_NK.float(), slack_N.float(), tie_N)


@dataclasses.dataclass
class Frames:
    """Frames to be searched for in a table.

    Attributes
    ----------
    x_ND : torch.Tensor
        The frames, float64.
    scaled_NK : torch.Tensor
        The frames in float32; their scores are inner products with ``Table.scaled_VK``.
    slack_N : torch.Tensor
        float32. A code is a candidate if its score is within this distance of the highest.
    tie_N : torch.Tensor
        float64. Codes tie if their float64 scores are within this distance of the highest.
    """

    x_ND: torch.Tensor
    scaled_NK: torch.Tensor
    slack_N: torch.Tensor
    tie_N: torch.Tensor
