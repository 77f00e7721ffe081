"""Search for the nearest code: in little memory, and exact.

float32 only narrows the search. Codes that its rounding cannot tell apart are compared in float64,
so that a frame has the same code in any batch, on any device, and by each of the three searches:
plain torch (here), numba on a CPU and Triton on a GPU, chosen by itself where it is installed.

Shape suffixes: N frames, C frames of a chunk, I input dim, D code dim, K = D or D + 1 (the offset
of a code as one more dimension), G codebooks, V codes, B blocks of codes.
"""

import dataclasses
import functools
import importlib.util
import math
import threading

import torch

from .precision import full_precision

# Frames that are searched at once on a CPU, and those of them that are projected at once.
CHUNK, PROJECTED = 1024, 256
# The search in plain torch: scores that it holds at once (2 MB), and codes of a block, whose
# highest score is taken before its codes are looked at one by one.
SCORES = 2**19
BLOCK = 32


def nearest_code(x_ND, codebook_VD):
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
        LongTensor of shape (frames,). A tie goes to the lowest index; a frame that holds NaN or
        Inf gets -1, which no codebook has.

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

    An operator of its own, as the next one: ``torch.compile`` and ``torch.export`` take it as one
    piece.

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
        LongTensor of shape (frames, codebooks), with ties and what is not finite as above.

    Example
    -------
    >>> highest_code(torch.tensor([[3.0]]), torch.tensor([[[1.0], [2.0]]]), torch.tensor([[4, 0]]))
    tensor([[0]])
    """
    tables = [
        Table(codebook_VD.float(), offset_V.double())
        for codebook_VD, offset_V in zip(codebook_GVD, offset_GV)
    ]
    return search(x_ND, tables)


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
        LongTensor of shape (frames, codebooks). A tie goes to the lowest index, so a frame that
        is projected to zeros gets code 0; a frame that holds NaN or Inf gets -1.

    Example
    -------
    >>> frames, codebook = torch.tensor([[0.1, 3.0], [0.0, 0.0]]), torch.eye(2)[None]
    >>> projected_codes(frames, torch.eye(2)[None], None, codebook)
    tensor([[1],
            [0]])
    """
    tables = [Table(codebook_VD.float()) for codebook_VD in codebook_GVD]
    return search(x_NI, tables, projection_GID, shift_GD)


@highest_code.register_fake
def _(x_ND, codebook_GVD, offset_GV):
    return x_ND.new_empty(x_ND.shape[0], codebook_GVD.shape[0], dtype=torch.long)


@projected_codes.register_fake
def _(x_NI, projection_GID, shift_GD, codebook_GVD):
    return x_NI.new_empty(x_NI.shape[0], codebook_GVD.shape[0], dtype=torch.long)


class Memory(threading.local):
    """Tensors that each thread keeps from one call to the next, since fresh pages cost time.

    On a CPU only: torch keeps the memory of a GPU itself, for each of its streams.
    """

    def __init__(self):
        self.tensors = {}

    def empty(self, name, like, *shape, dtype=torch.float32):
        """A tensor on the device of another one, on a CPU in the memory of this name."""
        if like.device.type != "cpu":
            return like.new_empty(shape, dtype=dtype)
        size = math.prod(shape)
        if name not in self.tensors or len(self.tensors[name]) < size:
            with torch.inference_mode(False):  # whose tensors cannot be written to outside of it
                self.tensors[name] = torch.empty(size, dtype=dtype)
        return self.tensors[name][:size].view(shape)


MEMORY = Memory()


class Table:
    """A codebook, ready to be searched for the largest inner product plus offset.

    Arguments
    ---------
    codebook_VD : torch.Tensor
        Codes, float32, shape (codes, dim).
    offset_V : torch.Tensor or None
        Added to the inner products, float64, shape (codes,).
    """

    def __init__(self, codebook_VD, offset_V=None):
        self.codebook_VD = codebook_VD
        self.offset_V = offset_V
        largest = codebook_VD.abs().amax()
        self.scale = torch.where(largest == 0, 1.0, largest).double()
        # Values up to 1: no score overflows in float32, whatever the codes and the frames are.
        self.scaled_VK = codebook_VD / self.scale.float()
        if offset_V is not None:
            scaled_V1 = (offset_V / self.scale**2).float()[:, None]
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


def search(x_NI, tables, projection_GID=None, shift_GD=None):
    """Codes of frames, projected to unit vectors or as they are, in each table.

    Returns
    -------
    codes_NG : torch.Tensor
        -1 for a frame that is not finite.
    """
    device = x_NI.device.type
    if device == "cpu" and has("numba"):
        from . import nearest_numba

        return nearest_numba.search(x_NI, tables, projection_GID, shift_GD)
    codes_of = TorchSearch(tables)
    if device == "cuda" and has("triton"):
        from .nearest_triton import search as codes_of
    codes_NG = x_NI.new_empty(len(x_NI), len(tables), dtype=torch.long)
    chunk = CHUNK if device == "cpu" else 32 * CHUNK  # a GPU waits for launches
    with full_precision(x_NI.device):
        for start in range(0, len(x_NI), chunk):
            part = slice(start, start + chunk)
            for g, table in enumerate(tables):
                if projection_GID is None:
                    x_CD = x_NI[part].double()
                else:
                    shift_D = None if shift_GD is None else shift_GD[g].double()
                    x_CD = project(x_NI[part], projection_GID[g].double(), shift_D)
                codes_NG[part, g] = table.codes(x_CD, codes_of)
    return codes_NG


def project(x_CI, projection_ID, shift_D):
    """Unit vectors in the directions of projected frames, in float64; zeros stay zeros."""
    x_CD = MEMORY.empty("x", x_CI, len(x_CI), projection_ID.shape[1], dtype=torch.double)
    size = PROJECTED if x_CI.device.type == "cpu" else len(x_CI)
    for part_PI, part_PD in zip(x_CI.split(size), x_CD.split(size)):
        frames_PI = MEMORY.empty("frames", x_CI, *part_PI.shape, dtype=torch.double)
        # The product this way round is twice as fast.
        projected_DP = projection_ID.T @ frames_PI.copy_(part_PI).T
        if shift_D is not None:
            projected_DP += shift_D[:, None]
        part_PD.copy_(torch.nn.functional.normalize(projected_DP, dim=0, eps=1e-300).T)
    return x_CD


@functools.cache
def has(library):
    """Whether a library is installed."""
    return importlib.util.find_spec(library) is not None


class TorchSearch:
    """A search in plain torch: the best block from all scores, then the best code in it."""

    def __init__(self, tables):
        self.padded = {}
        for table in tables:  # whole blocks, with copies of the last code
            copies = table.scaled_VK[-1:].expand(-len(table.scaled_VK) % BLOCK, -1)
            self.padded[table] = torch.cat([table.scaled_VK, copies])

    def __call__(self, frames, table):
        """Codes of ``Frames`` in a ``Table``."""
        (N, K), V = frames.scaled_NK.shape, len(table.codebook_VD)
        codes_VK = self.padded[table]
        highest_NB = MEMORY.empty("highest", codes_VK, N, len(codes_VK) // BLOCK)
        step = max(1, SCORES // max(N, 1) // BLOCK) * BLOCK
        for start in range(0, len(codes_VK), step):
            part_VK = codes_VK[start : start + step]
            scores_NV = MEMORY.empty("scores", codes_VK, N, len(part_VK))
            torch.mm(frames.scaled_NK, part_VK.T, out=scores_NV)
            blocks = slice(start // BLOCK, (start + step) // BLOCK)
            torch.amax(scores_NV.unflatten(1, (-1, BLOCK)), 2, out=highest_NB[:, blocks])
        best_N1, block_N1 = highest_NB.max(1, keepdim=True)
        slack_N1 = frames.slack_N[:, None]
        rivals_N = (highest_NB >= best_N1 - slack_N1).sum(1)

        codes_N = block_N1[:, 0] * BLOCK
        blocks_BX = codes_VK.view(-1, BLOCK * K)
        for part in torch.arange(N, device=codes_N.device).split(max(1, SCORES // 4 // BLOCK // K)):
            block_CX = MEMORY.empty("block", codes_VK, len(part), BLOCK * K)
            torch.index_select(blocks_BX, 0, block_N1[part, 0], out=block_CX)
            block_CbK = block_CX.view(-1, BLOCK, K)
            scores_Cb = torch.bmm(block_CbK, frames.scaled_NK[part, :, None])[..., 0]
            best_C1, place_C1 = scores_Cb.max(1, keepdim=True)
            codes_N[part] += place_C1[:, 0]
            rivals_N[part] += (scores_Cb >= best_C1 - slack_N1[part]).sum(1)

        unsure_N = (rivals_N > 2) | (codes_N >= V)
        for part in unsure_N.nonzero()[:, 0].split(max(1, SCORES // 8 // V)):
            codes_N[part] = self.exact_codes(frames.x_ND[part], frames.tie_N[part], table)
        return codes_N

    def exact_codes(self, x_CD, tie_C, table):
        """Codes from the float64 scores of all codes, for the few frames that need it."""
        scores_CV = x_CD @ table.codebook_VD.double().T
        if table.offset_V is not None:
            scores_CV += table.offset_V
        least_C1 = scores_CV.amax(1, keepdim=True) - tie_C[:, None]
        return (scores_CV >= least_C1).byte().argmax(1)
