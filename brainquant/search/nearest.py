"""Search for the nearest code: exact, and in little memory.

float32 finds the candidates; float64 decides between codes whose float32 scores are too close. So
a frame gets the same code in any batch, on any device, and from each of the three searches: numba
on a CPU, Triton on a GPU, and plain torch if that library is not installed.

Shape suffixes: N frames, I input dim, D code dim, G codebooks, V codes.
"""

import functools
import importlib.util
from collections.abc import Sequence

import torch

from . import plain


def nearest_code(x_ND: torch.Tensor, codebook_VD: torch.Tensor) -> torch.Tensor:
    """Index of the code that is nearest in Euclidean distance, for each frame.

    Arguments
    ---------
    x_ND : torch.Tensor
        Frames, shape (frames, dim), floating point.
    codebook_VD : torch.Tensor
        Codes, shape (codes, dim), of any norm.

    Returns
    -------
    codes_N : torch.Tensor
        LongTensor of shape (frames,). A tie goes to the lowest index. A frame with NaN or Inf
        gets -1.

    Example
    -------
    >>> codebook = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> nearest_code(torch.tensor([[2.0, 0.5], [0.1, 0.2], [float("nan"), 1.0]]), codebook)
    tensor([ 0,  1, -1])
    """
    offset_V = codebook_VD.detach().double().square().sum(1) / -2
    return highest_code(x_ND.detach(), codebook_VD.detach()[None], offset_V[None])[:, 0]


@torch.library.custom_op("brainquant::highest_code", mutates_args=())
def highest_code(
    x_ND: torch.Tensor, codebook_GVD: torch.Tensor, offset_GV: torch.Tensor
) -> torch.Tensor:
    """Index of the code with the highest inner product plus offset, in each codebook.

    It is a custom operator, as is ``projected_codes``: ``torch.compile`` and ``torch.export`` do
    not look inside.

    Arguments
    ---------
    x_ND : torch.Tensor
        Frames, shape (frames, dim), floating point.
    codebook_GVD : torch.Tensor
        Codes, shape (codebooks, codes, dim).
    offset_GV : torch.Tensor
        Shape (codebooks, codes).

    Returns
    -------
    codes_NG : torch.Tensor
        LongTensor of shape (frames, codebooks); ties and frames that are not finite as in
        ``nearest_code``.

    Example
    -------
    >>> highest_code(torch.tensor([[3.0]]), torch.tensor([[[1.0], [2.0]]]), torch.tensor([[4, 0]]))
    tensor([[0]])
    """
    return search(x_ND, list(zip(codebook_GVD, offset_GV)))


@torch.library.custom_op("brainquant::projected_codes", mutates_args=())
def projected_codes(
    x_NI: torch.Tensor,
    projection_GID: torch.Tensor,
    shift_GD: torch.Tensor | None,
    codebook_GVD: torch.Tensor,
) -> torch.Tensor:
    """Index of the code with the largest cosine to the projected frame, in each codebook.

    Arguments
    ---------
    x_NI : torch.Tensor
        Frames, shape (frames, input dim), floating point.
    projection_GID : torch.Tensor
        A projection for each codebook, shape (codebooks, input dim, dim).
    shift_GD : torch.Tensor or None
        Added to the projected frames, shape (codebooks, dim).
    codebook_GVD : torch.Tensor
        Codes of unit norm, shape (codebooks, codes, dim).

    Returns
    -------
    codes_NG : torch.Tensor
        LongTensor of shape (frames, codebooks). A tie goes to the lowest index, so a frame whose
        projection is zero gets code 0. A frame with NaN or Inf gets -1.

    Example
    -------
    >>> frames, codebook = torch.tensor([[0.1, 3.0], [0.0, 0.0]]), torch.eye(2)[None]
    >>> projected_codes(frames, torch.eye(2)[None], None, codebook)
    tensor([[1],
            [0]])
    """
    codebooks = [(codebook_VD, None) for codebook_VD in codebook_GVD]
    return search(x_NI, codebooks, projection_GID, shift_GD)


@highest_code.register_fake
def _(x_ND, codebook_GVD, offset_GV):
    return x_ND.new_empty(x_ND.shape[0], codebook_GVD.shape[0], dtype=torch.long)


@projected_codes.register_fake
def _(x_NI, projection_GID, shift_GD, codebook_GVD):
    return x_NI.new_empty(x_NI.shape[0], codebook_GVD.shape[0], dtype=torch.long)


def search(
    x_NI: torch.Tensor,
    codebooks: Sequence[tuple[torch.Tensor, torch.Tensor | None]],
    projection_GID: torch.Tensor | None = None,
    shift_GD: torch.Tensor | None = None,
) -> torch.Tensor:
    """Codes in each codebook of frames as they are, or of frames projected to unit vectors.

    Arguments
    ---------
    x_NI : torch.Tensor
        Frames.
    codebooks : list of tuple
        The codes and the offsets (or None) of each codebook, see ``table.Table``.
    projection_GID : torch.Tensor or None
        A projection for each codebook.
    shift_GD : torch.Tensor or None
        Added to the projected frames.

    Returns
    -------
    codes_NG : torch.Tensor
        -1 for a frame that is not finite.
    """
    device = x_NI.device.type
    if device == "cpu" and has("numba"):
        from . import compiled

        return compiled.search(x_NI, codebooks, projection_GID, shift_GD)
    if device == "cuda" and has("triton"):
        from . import gpu

        return plain.search(x_NI, codebooks, projection_GID, shift_GD, gpu.search)
    return plain.search(x_NI, codebooks, projection_GID, shift_GD)


@functools.cache
def has(library: str) -> bool:
    """Whether a library is installed."""
    return importlib.util.find_spec(library) is not None
