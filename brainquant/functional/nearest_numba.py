"""Search for the nearest code on a CPU, compiled with numba.

Scores of a few frames and 16 codes at a time stay in registers, and only the highest of every 16
x 16 codes is written down. Pieces of the frames are dealt out to the threads of torch's own OpenMP
pool as these get free: where another process holds a core, the other threads take over.

Suffixes: W codes side by side, R rows of W codes in a cell, P frames searched together.
"""

import ctypes
from contextlib import contextmanager

import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

W, R, P = 16, 16, 4
# Multiplications that a thread takes at a time: about a tenth of a millisecond.
PIECE = 2**22
# Rounds as it is written, apart from the fused multiply-add, which is one rounding less.
OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


@intrinsic
def highest_of_cell(typing_context, frames, table, cell, lanes, highest):
    """Writes the highest score of each lane of a cell of R x W codes, and that of all lanes.

    ``frames`` is (P, K), ``table`` (rows of W codes, K, W), ``lanes`` (P, W), ``highest`` (P,), all
    float32. This is LLVM's own language, since its vectoriser does not find the registers that
    this needs.
    """
    signature = types.void(frames, table, cell, lanes, highest)

    def codegen(context, builder, signature, args):
        frames, table, lanes, highest = (
            context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 1, 3, 4)
        )
        K = cgutils.unpack_tuple(builder, frames.shape)[1]
        i32, i64, vector = ir.IntType(32), ir.IntType(64), ir.VectorType(ir.FloatType(), W)
        to_all_lanes = ir.Constant(ir.VectorType(i32, W), [0] * W)
        undefined = ir.Constant(vector, ir.Undefined)

        def index(value):
            return ir.Constant(i64, value)

        def place(array, offset):
            return builder.gep(array, [offset])

        def larger(one, other):
            return builder.select(builder.fcmp_ordered(">", one, other), one, other)

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
                    value = builder.shuffle_vector(value, undefined, to_all_lanes)
                    product = builder.fmul(value, code, flags=["contract"])
                    total = builder.fadd(product, builder.load(pointer), flags=["contract"])
                    builder.store(total, pointer)
            for new, pointer in zip(score, best):
                builder.store(larger(builder.load(new), builder.load(pointer)), pointer)
        for p, pointer in enumerate(best):
            value, width = builder.load(pointer), W
            builder.store(value, as_vector(place(lanes.data, index(p * W))), align=4)
            while width > 1:  # one half with the other
                width //= 2
                halves = [
                    builder.shuffle_vector(
                        value,
                        ir.Constant(value.type, ir.Undefined),
                        ir.Constant(ir.VectorType(i32, width), [first + i for i in range(width)]),
                    )
                    for first in (0, width)
                ]
                value = larger(*halves)
            value = builder.extract_element(value, ir.Constant(i32, 0))
            builder.store(value, place(highest.data, index(p)))
        return context.get_dummy_value()

    return signature, codegen


@njit(**OPTIONS)
def exact_score(x, codebook, offset, v):
    """The float64 score of a code; an empty ``offset`` is none."""
    score = 0.0
    for d in range(len(x)):
        score += x[d] * np.float64(codebook[v, d])
    return score + offset[v] if len(offset) else score


@njit(**OPTIONS)
def search_piece(x, scaled, slack, tie, table, codebook, offset, codes, start, stop):
    """Codes of the frames from start to stop; see ``nearest.Frames`` and ``nearest.Table``."""
    num_cells, V = len(table) // R, len(codebook)
    highest = np.empty((num_cells, P), np.float32)
    lanes = np.empty((num_cells, P, W), np.float32)
    candidates = np.empty(V, np.int64)
    scores = np.empty(V)
    frames = np.empty((P, scaled.shape[1]), np.float32)
    for first in range(start, stop, P):
        for p in range(P):
            frames[p] = scaled[min(first + p, stop - 1)]
        for cell in range(num_cells):
            highest_of_cell(frames, table, cell, lanes[cell], highest[cell])
        for p in range(min(P, stop - first)):
            n = first + p
            least = highest[:, p].max() - slack[n]
            count = 0
            for cell in range(num_cells):
                if highest[cell, p] >= least:
                    for w in range(W):
                        if lanes[cell, p, w] >= least:
                            for v in range(cell * R * W + w, min((cell + 1) * R * W, V), W):
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


@intrinsic
def at(typing_context, address):
    """The pointer to an address."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), codegen


@intrinsic
def take_number(typing_context, counter):
    """Adds one to the first element of an array of int64; gives what it was to one thread only."""

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", array.data, one, "seq_cst")

    return types.int64(counter), codegen


@cfunc(types.void(types.voidptr), cache=True, **{**OPTIONS, "nogil": False})
def work(job):
    """What each thread does: pieces of the search, until there are none left."""
    counter = carray(job, 1, np.int64)
    numbers = carray(job, 16, np.int64)
    N, K, D, V, rows, offsets, step = numbers[1:8]
    x = carray(at(numbers[8]), (N, D), np.float64)
    scaled = carray(at(numbers[9]), (N, K), np.float32)
    slack = carray(at(numbers[10]), N, np.float32)
    tie = carray(at(numbers[11]), N, np.float64)
    table = carray(at(numbers[12]), (rows, K, W), np.float32)
    codebook = carray(at(numbers[13]), (V, D), np.float32)
    offset = carray(at(numbers[14]), offsets, np.float64)
    codes = carray(at(numbers[15]), N, np.int64)
    start = take_number(counter) * step
    while start < N:
        stop = min(start + step, N)
        search_piece(x, scaled, slack, tie, table, codebook, offset, codes, start, stop)
        start = take_number(counter) * step


def pack(table):
    """The scaled codes as (rows of W codes, K, W), whole cells of them, and copies of the last."""
    scaled_VK = table.scaled_VK
    V, K = scaled_VK.shape
    missing = -V % (R * W)
    scaled_VK = torch.cat([scaled_VK, scaled_VK[-1:].expand(missing, K)])
    return scaled_VK.view(-1, W, K).transpose(1, 2).contiguous()


@contextmanager
def searching():
    """A search of ``nearest.Frames`` in a ``nearest.Table``, on the threads that torch may use."""
    packed = {}
    # Threads of our own would share their cores with torch's, which spin after each of its
    # operations. Of all OpenMP libraries, those of Windows alone do not know this name.
    run_in_team = getattr(ctypes.CDLL(None), "GOMP_parallel", None)

    def search(frames, table):
        if table not in packed:
            offset = torch.empty(0) if table.offset_V is None else table.offset_V
            packed[table] = [pack(table), table.codebook_VD.contiguous(), offset]
        (N, K), (V, D) = frames.scaled_NK.shape, table.codebook_VD.shape
        codes_N = torch.empty(N, dtype=torch.long)
        tensors = [
            *(value.contiguous() for value in vars(frames).values()),
            *packed[table],
            codes_N,
        ]
        step = max(P, PIECE // (V * K) // P * P)
        sizes = [N, K, D, V, len(tensors[4]), len(tensors[6]), step]
        job = np.array([0, *sizes, *(tensor.data_ptr() for tensor in tensors)])
        threads = min(torch.get_num_threads(), -(-N // step))
        if run_in_team is None or threads <= 1:
            work.ctypes(job.ctypes.data)
        else:
            function, job_at = ctypes.c_void_p(work.address), ctypes.c_void_p(job.ctypes.data)
            run_in_team(function, job_at, ctypes.c_uint(threads), ctypes.c_uint(0))
        return codes_N

    yield search
