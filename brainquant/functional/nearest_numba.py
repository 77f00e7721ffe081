"""Search for the nearest code on a CPU, compiled with numba.

Scores of a few frames and 16 codes at a time stay in registers, and only the highest of every 16
x 16 codes is written down. Chunks of frames are dealt out to threads as these get free: where
another process holds a core, the other threads take over, and nothing waits at a barrier.

Suffixes: W codes side by side, R rows of W codes in a cell, P frames searched together.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

W, R, P = 16, 16, 4
# Multiplications that a thread takes at a time: about half a millisecond.
PIECE = 2**24
# Rounds as it is written, apart from the fused multiply-add, which is one rounding less.
OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


@intrinsic
def highest_of_cell(typing_context, frames, table, cell, highest):
    """Writes the highest scores of each lane of a cell of R x W codes, for P frames.

    ``frames`` is (P, K), ``table`` (rows of W codes, K, W), ``highest`` (P, W), all float32. This
    is LLVM's own language, since its vectoriser does not find the registers that this needs.
    """
    signature = types.void(frames, table, cell, highest)

    def codegen(context, builder, signature, args):
        frames, table, highest = (
            context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 1, 3)
        )
        K = cgutils.unpack_tuple(builder, frames.shape)[1]
        i32, i64, vector = ir.IntType(32), ir.IntType(64), ir.VectorType(ir.FloatType(), W)
        lanes = ir.Constant(ir.VectorType(i32, W), [0] * W)
        undefined = ir.Constant(vector, ir.Undefined)

        def index(value):
            return ir.Constant(i64, value)

        def place(array, offset):
            return builder.gep(array, [offset])

        def as_vector(pointer):
            return builder.bitcast(pointer, vector.as_pointer())

        best = [cgutils.alloca_once(builder, vector) for _ in range(P)]
        score = [cgutils.alloca_once(builder, vector) for _ in range(P)]
        for pointer in best:
            builder.store(ir.Constant(vector, [-np.inf] * W), pointer)
        with cgutils.for_range(builder, index(R)) as row:
            number = builder.add(builder.mul(args[2], index(R)), row.index)
            codes = place(table.data, builder.mul(number, builder.mul(K, index(W))))
            for pointer in score:
                builder.store(ir.Constant(vector, [0.0] * W), pointer)
            with cgutils.for_range(builder, K) as dim:
                code = as_vector(place(codes, builder.mul(dim.index, index(W))))
                code = builder.load(code, align=4)
                for p, pointer in enumerate(score):
                    at = builder.add(builder.mul(K, index(p)), dim.index)
                    value = builder.load(place(frames.data, at))
                    value = builder.insert_element(undefined, value, ir.Constant(i32, 0))
                    value = builder.shuffle_vector(value, undefined, lanes)
                    product = builder.fmul(value, code, flags=["contract"])
                    total = builder.fadd(product, builder.load(pointer), flags=["contract"])
                    builder.store(total, pointer)
            for new, old in zip(score, best):
                new, pointer, old = builder.load(new), old, builder.load(old)
                larger = builder.fcmp_ordered(">", new, old)
                builder.store(builder.select(larger, new, old), pointer)
        for p, pointer in enumerate(best):
            written = as_vector(place(highest.data, index(p * W)))
            builder.store(builder.load(pointer), written, align=4)
        return context.get_dummy_value()

    return signature, codegen


@njit(**OPTIONS)
def exact_score(x, codebook, offset, v):
    """The float64 score of a code; an empty ``offset`` is none."""
    score = 0.0
    for d in range(len(x)):
        score += x[d] * np.float64(codebook[v, d])
    return score + offset[v] if len(offset) else score


@njit(cache=True, **OPTIONS)
def search_piece(x, scaled, slack, tie, table, codebook, offset, codes, start, stop):
    """Codes of the frames from start to stop; see ``nearest.Frames`` and ``nearest.Table``."""
    num_cells, V = len(table) // R, len(codebook)
    highest = np.empty((num_cells, P, W), np.float32)
    candidates = np.empty(num_cells * R * W, np.int64)
    scores = np.empty(num_cells * R * W)
    frames = np.empty((P, scaled.shape[1]), np.float32)
    for first in range(start, stop, P):
        for p in range(P):
            frames[p] = scaled[min(first + p, stop - 1)]
        for cell in range(num_cells):
            highest_of_cell(frames, table, cell, highest[cell])
        for p in range(min(P, stop - first)):
            n = first + p
            least = highest[0, p, 0]
            for cell in range(num_cells):
                for w in range(W):
                    least = max(least, highest[cell, p, w])
            least -= slack[n]
            count = 0
            for cell in range(num_cells):
                for w in range(W):
                    if highest[cell, p, w] >= least:
                        for r in range(R):
                            v = (cell * R + r) * W + w
                            if v < V:
                                candidates[count] = v
                                scores[count] = exact_score(x[n], codebook, offset, v)
                                count += 1
            codes[n] = 0
            if count:
                best = scores[:count].max() - tie[n]
                codes[n] = V
                for i in range(count):
                    if scores[i] >= best:
                        codes[n] = min(codes[n], candidates[i])


def pack(table):
    """The scaled codes as (rows of W codes, K, W), whole cells of them, and copies of the last."""
    scaled_VK = table.scaled_VK
    V, K = scaled_VK.shape
    missing = -V % (R * W)
    scaled_VK = torch.cat([scaled_VK, scaled_VK[-1:].expand(missing, K)])
    return scaled_VK.view(-1, W, K).transpose(1, 2).contiguous().numpy()


@contextmanager
def searching():
    """A search of ``nearest.Frames`` in a ``nearest.Table``, on the threads that torch may use.

    The threads are started for one call: a pool that outlived it would hang a forked process.
    """
    packed = {}
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:

        def search(frames, table):
            if table not in packed:
                offset = np.empty(0) if table.offset_V is None else table.offset_V.numpy()
                packed[table] = pack(table), table.codebook_VD.contiguous().numpy(), offset
            tables, N = packed[table], len(frames.x_ND)
            codes_N = torch.empty(N, dtype=torch.long)
            arrays = [value.contiguous().numpy() for value in vars(frames).values()]

            def search_from(start):
                stop = min(start + step, N)
                search_piece(*arrays, *tables, codes_N.numpy(), start, stop)

            step = max(P, PIECE // table.scaled_VK.numel() // P * P)
            list(pool.map(search_from, range(0, N, step)))
            return codes_N

        yield search
