"""Search for the nearest code in plain torch, a few frames at a time.

Shape suffixes: N frames, C frames of a chunk, P of a projected part, I input dim, D code dim,
K = D or D + 1 (see ``table``), G codebooks, V codes, B blocks of b codes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

import torch

from ..functional.precision import full_precision
from .table import Frames, Table

# On a CPU: frames that are searched at once, and frames that are projected at once.
CHUNK, PROJECTED = 1024, 256
# Scores held at once (2 MB), and codes of a block: first the best block is found, then the best
# code in it.
SCORES = 2**19
BLOCK = 32


def search(
    x_NI: torch.Tensor,
    codebooks: Sequence[tuple[torch.Tensor, torch.Tensor | None]],
    projection_GID: torch.Tensor | None,
    shift_GD: torch.Tensor | None,
    search_in_table: Callable[[Frames, Table], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Codes of frames in each codebook; see ``nearest.search``.

    ``search_in_table`` gives the codes of frames in one table; ``TorchSearch`` by default.
    """
    tables = [Table(*codebook) for codebook in codebooks]
    search_in_table = search_in_table or TorchSearch(tables)
    codes_NG = x_NI.new_empty(len(x_NI), len(tables), dtype=torch.long)
    chunk = CHUNK if x_NI.device.type == "cpu" else 32 * CHUNK  # a GPU waits for launches
    with full_precision(x_NI.device):
        for start in range(0, len(x_NI), chunk):
            part = slice(start, start + chunk)
            for g, table in enumerate(tables):
                if projection_GID is None:
                    x_CD = x_NI[part].double()
                else:
                    shift_D = None if shift_GD is None else shift_GD[g].double()
                    x_CD = project(x_NI[part], projection_GID[g].double(), shift_D)
                codes_NG[part, g] = table.codes(x_CD, search_in_table)
    return codes_NG


def project(
    x_CI: torch.Tensor, projection_ID: torch.Tensor, shift_D: torch.Tensor | None
) -> torch.Tensor:
    """Unit vectors in the directions of projected frames, in float64; zeros stay zeros."""
    x_CD = MEMORY.empty("x", x_CI, len(x_CI), projection_ID.shape[1], dtype=torch.double)
    size = PROJECTED if x_CI.device.type == "cpu" else len(x_CI)
    for part_PI, part_PD in zip(x_CI.split(size), x_CD.split(size)):
        frames_PI = MEMORY.empty("frames", x_CI, *part_PI.shape, dtype=torch.double)
        # This order of the factors is twice as fast as the other.
        projected_DP = projection_ID.T @ frames_PI.copy_(part_PI).T
        if shift_D is not None:
            projected_DP += shift_D[:, None]
        part_PD.copy_(torch.nn.functional.normalize(projected_DP, dim=0, eps=1e-300).T)
    return x_CD


class Memory(threading.local):
    """Tensors that each thread keeps from one call to the next: new memory pages cost time.

    On a CPU only; torch itself keeps the memory of a GPU.
    """

    def __init__(self):
        self.tensors: dict[str, torch.Tensor] = {}

    def empty(
        self, name: str, like: torch.Tensor, *shape: int, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """A tensor on the device of ``like``; on a CPU, in the memory that has this name."""
        if like.device.type != "cpu":
            return like.new_empty(shape, dtype=dtype)
        size = math.prod(shape)
        if name not in self.tensors or len(self.tensors[name]) < size:
            # A tensor made in inference mode cannot be written to outside of it.
            with torch.inference_mode(False):
                self.tensors[name] = torch.empty(size, dtype=dtype)
        return self.tensors[name][:size].view(shape)


MEMORY = Memory()


class TorchSearch:
    """Finds the best block of codes from all scores, then the best code in that block."""

    def __init__(self, tables: Sequence[Table]):
        self.padded: dict[Table, torch.Tensor] = {}
        for table in tables:  # whole blocks, with copies of the last code
            copies = table.scaled_VK[-1:].expand(-len(table.scaled_VK) % BLOCK, -1)
            self.padded[table] = torch.cat([table.scaled_VK, copies])

    def __call__(self, frames: Frames, table: Table) -> torch.Tensor:
        """Codes of the frames in the table."""
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
            best_C1, index_C1 = scores_Cb.max(1, keepdim=True)
            codes_N[part] += index_C1[:, 0]
            rivals_N[part] += (scores_Cb >= best_C1 - slack_N1[part]).sum(1)

        unsure_N = (rivals_N > 2) | (codes_N >= V)
        for part in unsure_N.nonzero()[:, 0].split(max(1, SCORES // 8 // V)):
            codes_N[part] = self.exact_codes(frames.x_ND[part], frames.tie_N[part], table)
        return codes_N

    def exact_codes(self, x_CD: torch.Tensor, tie_C: torch.Tensor, table: Table) -> torch.Tensor:
        """Codes from the float64 scores of all codes, for the few frames that need them."""
        scores_CV = x_CD @ table.codebook_VD.double().T
        if table.offset_V is not None:
            scores_CV += table.offset_V
        least_C1 = scores_CV.amax(1, keepdim=True) - tie_C[:, None]
        return (scores_CV >= least_C1).byte().argmax(1)
