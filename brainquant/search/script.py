"""Search for the nearest code in TorchScript: its programs run without Python and our operators.

Shape suffixes: B batch, T time, N = B * T frames, C frames of a chunk, I input dim, D code dim, G
codebooks, V codes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def projected_codes_in_script(
    x_BTI: Tensor, P: Tensor, CB: Tensor, shift_D: Tensor | None
) -> Tensor:
    """The codes of ``nearest.projected_codes``, more slowly, in functions that TorchScript knows.

    Arguments
    ---------
    x_BTI : torch.Tensor
        Frames, shape (batch, time, input dim).
    P : torch.Tensor
        Projections, shape (..., input dim, dim).
    CB : torch.Tensor
        Codes, shape (..., codes, dim), with as many leading dimensions.
    shift_D : torch.Tensor or None
        Added to the projected frames, shape (dim).

    Returns
    -------
    codes_BTG : torch.Tensor
        LongTensor; -1 for a frame that is not finite.

    Example
    -------
    >>> x_BTI = torch.tensor([[[0.1, 3.0], [0.0, 0.0], [0.0, torch.inf]]])
    >>> projected_codes_in_script(x_BTI, torch.eye(2), torch.eye(2), None)[..., 0]
    tensor([[ 1,  0, -1]])
    """
    P_GID = P.double().reshape(-1, P.size(-2), P.size(-1))
    CB_GDV = F.normalize(CB.double().reshape(-1, CB.size(-2), CB.size(-1)), dim=-1).mT
    x_NI = x_BTI.detach().double().flatten(0, 1)
    codes_GN = torch.empty((P_GID.size(0), x_NI.size(0)), dtype=torch.long, device=x_NI.device)
    for start in range(0, x_NI.size(0), 256):
        x_CI = x_NI[start : start + 256]
        x_GCD = x_CI @ P_GID
        if shift_D is not None:
            x_GCD = x_GCD + shift_D.double()
        codes_GC = torch.argmax(F.normalize(x_GCD, dim=-1, eps=1e-300) @ CB_GDV, dim=-1)
        codes_GN[:, start : start + 256] = codes_GC.masked_fill(~x_CI.isfinite().all(-1), -1)
    return codes_GN.T.reshape(x_BTI.size(0), x_BTI.size(1), -1)
