"""Search for the nearest code on a GPU, as one kernel that never writes scores to memory.

A tile of BF frames reads BV codes at a time, and BK of their values at a time.
"""

# The kernels are in Triton's language, whose types pyright does not know.
# pyright: reportCallIssue=false, reportArgumentType=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false

import torch
import triton
import triton.language as tl

from .table import Frames, Table

BF, BV = 64, 64


@triton.jit
def search_kernel(
    scaled_ptr, x_ptr, slack_ptr, tie_ptr, table_ptr, codebook_ptr, offset_ptr, codes_ptr,
    N, V: tl.constexpr, K: tl.constexpr, D: tl.constexpr, HAS_OFFSET: tl.constexpr,
    BF: tl.constexpr, BV: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Codes of BF frames; see ``table.Frames`` and ``table.Table``."""
    frame = tl.program_id(0).to(tl.int64) * BF + tl.arange(0, BF)
    here, lane = frame < N, tl.arange(0, BV)
    # Lane l reads codes l, l + BV, l + 2 BV ...: its best, the index of that, and its second best.
    best = tl.full((BF, BV), float("-inf"), tl.float32)
    second = tl.full((BF, BV), float("-inf"), tl.float32)
    where = tl.zeros((BF, BV), tl.int32)
    for start in range(0, V, BV):
        code = start + lane
        score = tl.zeros((BF, BV), tl.float32)
        for first in range(0, K, BK):
            dim = first + tl.arange(0, BK)
            inside = dim < K
            scaled = tl.load(
                scaled_ptr + frame[:, None] * K + dim[None, :],
                mask=here[:, None] & inside[None, :],
                other=0.0,
            )
            table = tl.load(
                table_ptr + code[None, :] * K + dim[:, None],
                mask=(code < V)[None, :] & inside[:, None],
                other=0.0,
            )
            score = tl.dot(scaled, table, score, input_precision="ieee")
        score = tl.where((code < V)[None, :], score, float("-inf"))
        second = tl.maximum(second, tl.minimum(best, score))
        where = tl.where(score > best, code[None, :], where)
        best = tl.maximum(best, score)
    highest = tl.max(best, 1)
    codes = tl.min(tl.where(best == highest[:, None], where, V), 1)
    slack = tl.load(slack_ptr + frame, mask=here, other=-1.0)
    least = (highest - slack)[:, None]
    rivals = tl.sum((best >= least).to(tl.int32) + (second >= least).to(tl.int32), 1)
    unsure = rivals > 1
    if tl.max(unsure.to(tl.int32), 0) > 0:  # rare: the whole tile again, in float64
        tie = tl.load(tie_ptr + frame, mask=here, other=0.0)
        top = tl.full((BF,), float("-inf"), tl.float64)
        for start in range(0, V, BV):
            exact = exact_scores(
                x_ptr, codebook_ptr, offset_ptr, frame, here, start + lane, V, D, HAS_OFFSET
            )
            top = tl.maximum(top, tl.max(exact, 1))
        lowest = tl.full((BF,), 0, tl.int32) + V
        for start in range(0, V, BV):
            code = start + lane
            exact = exact_scores(
                x_ptr, codebook_ptr, offset_ptr, frame, here, code, V, D, HAS_OFFSET
            )
            tied = exact >= (top - tie)[:, None]
            lowest = tl.minimum(lowest, tl.min(tl.where(tied, code[None, :], V), 1))
        codes = tl.where(unsure, lowest, codes)
    tl.store(codes_ptr + frame, codes.to(tl.int64), mask=here)


@triton.jit
def exact_scores(
    x_ptr,
    codebook_ptr,
    offset_ptr,
    frame,
    here,
    code,
    V: tl.constexpr,
    D: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
):
    """float64 scores of a tile, summed dimension by dimension; -inf beyond the codebook."""
    score = tl.zeros((frame.shape[0], code.shape[0]), tl.float64)
    for d in range(D):
        x = tl.load(x_ptr + frame * D + d, mask=here, other=0.0)
        value = tl.load(codebook_ptr + code * D + d, mask=code < V, other=0.0).to(tl.float64)
        score += x[:, None] * value[None, :]
    if HAS_OFFSET:
        score += tl.load(offset_ptr + code, mask=code < V, other=0.0)[None, :]
    return tl.where((code < V)[None, :], score, float("-inf"))


def search(frames: Frames, table: Table) -> torch.Tensor:
    """Codes of the frames in the table; nothing waits for the device."""
    N, K = frames.scaled_NK.shape
    V, D = table.codebook_VD.shape
    codes_N = torch.empty(N, dtype=torch.long, device=frames.x_ND.device)
    x_ND, codebook_VD = frames.x_ND.contiguous(), table.codebook_VD.contiguous()
    search_kernel[(triton.cdiv(N, BF),)](
        frames.scaled_NK.contiguous(), x_ND, frames.slack_N, frames.tie_N,
        table.scaled_VK.contiguous(), codebook_VD,
        codebook_VD if table.offset_V is None else table.offset_V, codes_N,
        N, V, K, D, HAS_OFFSET=table.offset_V is not None,
        BF=BF, BV=BV, BK=min(64, max(16, triton.next_power_of_2(K))),
    )  # fmt: skip
    return codes_N
