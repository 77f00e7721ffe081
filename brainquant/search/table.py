"""What float32 has to know of codes and frames to find the candidates for the nearest code.

Shape suffixes: N frames, D code dim, K = D or D + 1 (the offset of a code as one more dimension),
V codes.
"""

import dataclasses

import torch


class Table:
    """A codebook, ready to be searched for the largest inner product plus offset.

    Arguments
    ---------
    codebook_VD : torch.Tensor
        Codes, shape (codes, dim).
    offset_V : torch.Tensor or None
        Added to the inner products, shape (codes,).
    """

    def __init__(self, codebook_VD, offset_V=None):
        self.codebook_VD = codebook_VD = codebook_VD.float()
        self.offset_V = None if offset_V is None else offset_V.double()
        largest = codebook_VD.abs().amax()
        self.scale = torch.where(largest == 0, 1.0, largest).double()
        # Values up to 1: no score overflows in float32, whatever the codes and the frames are.
        self.scaled_VK = codebook_VD / self.scale.float()
        if offset_V is not None:
            scaled_V1 = (self.offset_V / self.scale**2).float()[:, None]
            self.scaled_VK = torch.cat([self.scaled_VK, scaled_V1], 1)
        self.norm = self.scaled_VK.square().sum(1).amax().sqrt()  # of the longest code

    def codes(self, x_ND, search):
        """Codes of frames in float64; -1 for those that are not finite."""
        valid_N = torch.isfinite(x_ND).all(1)
        x_ND = torch.where(valid_N[:, None], x_ND, 0.0)
        return torch.where(valid_N, search(self.frames(x_ND), self), -1)

    def frames(self, x_ND):
        """The frames beside what float32 needs to find their candidates."""
        largest_N1 = x_ND.abs().amax(1, keepdim=True)
        if self.offset_V is None:
            scale_N1 = torch.where(largest_N1 == 0, 1.0, largest_N1)
            scaled_NK = x_ND / scale_N1
        else:
            scale_N1 = torch.maximum(largest_N1, self.scale)
            scaled_NK = torch.cat([x_ND / scale_N1, self.scale / scale_N1], 1)
        K = scaled_NK.shape[1]
        bound_N = scaled_NK.square().sum(1).sqrt() * self.norm
        # The rounding of a float32 inner product is at most (K + 3) 2**-24 of the norms' product,
        # here for two of them and with room for the rounding of the bound itself. A frame of
        # zeros has tied with all codes, without a look at them.
        slack_N = torch.where(bound_N == 0, -1.0, 2 * (K + 4) * 2.0**-24 * bound_N)
        tie_N = K * 2.0**-50 * bound_N * scale_N1[:, 0] * self.scale
        return Frames(x_ND, scaled_NK.float(), slack_N.float(), tie_N)


@dataclasses.dataclass
class Frames:
    """What a search is given beside a table.

    Attributes
    ----------
    x_ND : torch.Tensor
        The frames, float64.
    scaled_NK : torch.Tensor
        float32 frames, whose scores are inner products with ``Table.scaled_VK``.
    slack_N : torch.Tensor
        float32. A code whose score is as close as this to the highest may be the best.
    tie_N : torch.Tensor
        float64. Codes whose float64 scores are as close as this to the highest have tied.
    """

    x_ND: torch.Tensor
    scaled_NK: torch.Tensor
    slack_N: torch.Tensor
    tie_N: torch.Tensor
