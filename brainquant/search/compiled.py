"""Search for the nearest code on a CPU, compiled with numba.

From frames to codes it is one parallel region on torch's own OpenMP threads. A thread that is free
takes the next piece of the frames. So if another process holds a core, the other threads do its
work, and nothing waits except for the last piece.

Suffixes: N frames, I input dim, D code dim, K = D or D + 1 (see ``table``), G codebooks, V codes,
W codes side by side, R rows of W codes in a cell, P frames searched together.
"""

# numba.njit and numba.extending.intrinsic change what a function takes; pyright cannot know it.
# pyright: reportCallIssue=false

import ctypes
import functools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, njit, types  # pyright: ignore[reportPrivateImportUsage]
from numba.extending import intrinsic

from .table import Table
from .tile import P, W, highest_of

R = 16
# Multiplications in a piece: about a tenth of a millisecond.
PIECE = 2**22
# Frames that are copied at once if they are not contiguous, or neither float32 nor float64.
COPIED = 4096
# The compiler may fuse a multiplication and an addition, and change no other rounding.
OPTIONS = {"error_model": "numpy", "fastmath": {"contract"}}

highest_of_cell = highest_of(R)
product_of_row = highest_of(1)


@njit(**OPTIONS)
def exact_score(x, codebook, offset, v):
    """The float64 score of a code; an empty ``offset`` means no offset."""
    score = 0.0
    for d in range(len(x)):
        score += x[d] * np.float64(codebook[v, d])
    return score + offset[v] if len(offset) else score


@njit(**OPTIONS)
def project(frames, projection, shift, products, unused, x):
    """Projects P frames and scales them to unit norm; zeros stay zeros."""
    for row in range(len(projection)):
        product_of_row(frames, projection, row, products, unused)
        for p in range(P):
            for d in range(row * W, min((row + 1) * W, x.shape[1])):
                x[p, d] = products[p, d - row * W] + shift[d]
    for p in range(P):
        norm = np.sqrt((x[p] * x[p]).sum())
        if norm != 0.0:
            x[p] /= norm


@njit(**OPTIONS)
def scale(x, table_scale, table_norm, has_offset, scaled):
    """Scaled values, slack and tie of one frame, as in ``table.Table.frames``."""
    largest = np.abs(x).max()
    by = max(largest, table_scale) if has_offset else (largest if largest != 0.0 else 1.0)
    square = 0.0
    for d in range(len(x)):
        scaled[d] = x[d] / by
        square += (x[d] / by) ** 2
    if has_offset:
        scaled[len(x)] = table_scale / by
        square += (table_scale / by) ** 2
    bound = np.sqrt(square) * table_norm
    K = len(scaled)
    slack = 2 * (K + 4) * 2.0**-24 * bound if bound != 0.0 else -1.0
    return slack, K * 2.0**-50 * bound * by * table_scale


@njit(**OPTIONS)
def search_piece(values, projection, shift, table, codebook, offset, numbers, codes, start, stop):
    """Codes of the frames from start to stop."""
    num_cells, (V, D) = len(table) // R, codebook.shape
    frames, x = np.empty((P, values.shape[1])), np.empty((P, D))
    products, unused = np.empty((P, W)), np.empty(P)
    scaled = np.empty((P, table.shape[1]), np.float32)
    slack, tie = np.empty(P), np.empty(P)
    lanes = np.empty((num_cells, P, W), np.float32)
    highest = np.empty((num_cells, P), np.float32)
    candidates, scores = np.empty(V, np.int64), np.empty(V)
    for first in range(start, stop, P):
        for p in range(P):
            frames[p] = values[min(first + p, stop - 1)]
        if len(projection):
            project(frames, projection, shift, products, unused, x)
        else:
            x[:] = frames
        for p in range(P):
            slack[p], tie[p] = scale(x[p], numbers[0], numbers[1], len(offset) > 0, scaled[p])
        for cell in range(num_cells):
            highest_of_cell(scaled, table, cell, lanes[cell], highest[cell])
        for p in range(min(P, stop - first)):
            least = highest[:, p].max() - np.float32(slack[p])
            count = 0
            for cell in range(num_cells):
                if highest[cell, p] >= least:
                    for w in range(W):
                        if lanes[cell, p, w] >= least:
                            for v in range(cell * R * W + w, min((cell + 1) * R * W, V), W):
                                candidates[count] = v
                                scores[count] = exact_score(x[p], codebook, offset, v)
                                count += 1
            code = 0
            if not np.isfinite(x[p].sum()):
                code = -1
            elif count:
                best, code = scores[:count].max() - tie[p], V
                for i in range(count):
                    if scores[i] >= best:
                        code = min(code, candidates[i])
            codes[first + p] = code


@intrinsic
def at(typing_context, address):
    """The address as a pointer."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), codegen


@intrinsic
def take_number(typing_context, counter):
    """Adds one to the first element of an int64 array, atomically; gives the value of before."""

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", array.data, one, "seq_cst")

    return types.int64(counter), codegen


@functools.cache
def worker(value_type: type):
    """The function that each thread runs: it searches piece after piece until none is left."""

    def work(job):
        sizes = carray(job, 18, np.int64)
        N, input_dim, projection_rows, V, D, K, rows, offsets, step = sizes[1:10]
        values = carray(at(sizes[10]), (N, input_dim), value_type)
        projection = carray(at(sizes[11]), (projection_rows, input_dim, W), np.float64)
        shift = carray(at(sizes[12]), D, np.float64)
        table = carray(at(sizes[13]), (rows, K, W), np.float32)
        codebook = carray(at(sizes[14]), (V, D), np.float32)
        offset = carray(at(sizes[15]), offsets, np.float64)
        numbers = carray(at(sizes[16]), 2, np.float64)
        codes = carray(at(sizes[17]), N, np.int64)
        start = take_number(sizes) * step
        while start < N:
            stop = min(start + step, N)
            search_piece(
                values, projection, shift, table, codebook, offset, numbers, codes, start, stop
            )
            start = take_number(sizes) * step

    signature = types.void(types.voidptr)
    try:
        return cfunc(signature, cache=True, **OPTIONS)(work)
    except RuntimeError:  # numba has no writable folder for its cache
        return cfunc(signature, **OPTIONS)(work)


TYPES = {torch.float32: np.float32, torch.float64: np.float64}


@functools.cache
def openmp():
    """The OpenMP library that torch computes with, or None on Windows.

    Threads of our own would compete with torch's, which spin after each of its operations.
    """
    return None if sys.platform == "win32" else ctypes.CDLL(None)


def pack(rows_VK: torch.Tensor, width: int) -> torch.Tensor:
    """Codes as (rows of W codes, K, W), padded with the last code to a multiple of ``width``."""
    copies = rows_VK[-1:].expand(-len(rows_VK) % width, -1)
    return torch.cat([rows_VK, copies]).view(-1, W, rows_VK.shape[1]).mT.contiguous()


@contextmanager
def one_torch_thread() -> Iterator[int]:
    """Torch's operations of this thread on one core; gives the number of threads of before.

    Each parallel operation of torch waits for all threads: for milliseconds if another process
    holds the core of one. ``torch.set_num_threads`` would change all threads of the process;
    OpenMP's own function changes the calling thread only.
    """
    threads = torch.get_num_threads()
    set_threads = getattr(openmp(), "omp_set_num_threads", None)
    if set_threads is None:
        yield threads
        return
    set_threads(ctypes.c_int(1))
    try:
        yield threads
    finally:
        set_threads(ctypes.c_int(threads))


def search(
    x_NI: torch.Tensor,
    codebooks: Sequence[tuple[torch.Tensor, torch.Tensor | None]],
    projection_GID: torch.Tensor | None,
    shift_GD: torch.Tensor | None,
) -> torch.Tensor:
    """Codes of frames in each codebook; see ``nearest.search``."""
    with one_torch_thread() as threads:
        tables = [Table(*codebook) for codebook in codebooks]
        codes_GN = torch.empty(len(tables), len(x_NI), dtype=torch.long)
        whole = x_NI.is_contiguous() and x_NI.dtype in TYPES
        for start in range(0, len(x_NI), max(len(x_NI), 1) if whole else COPIED):
            part_NI = x_NI[start:] if whole else x_NI[start : start + COPIED]
            if part_NI.dtype not in TYPES:
                part_NI = part_NI.float()
            for g, table in enumerate(tables):
                codes_N = codes_GN[g, start : start + len(part_NI)]
                projection_DI = shift_D = None
                if projection_GID is not None:
                    projection_DI = projection_GID[g].T.double()
                    shift_D = torch.zeros(len(projection_DI), dtype=torch.double)
                    if shift_GD is not None:
                        shift_D += shift_GD[g]
                search_part(part_NI.contiguous(), table, projection_DI, shift_D, codes_N, threads)
        return codes_GN.T.contiguous()


def search_part(
    x_NI: torch.Tensor,
    table: Table,
    projection_DI: torch.Tensor | None,
    shift_D: torch.Tensor | None,
    codes_N: torch.Tensor,
    threads: int,
) -> None:
    """Writes the codes of frames in one table into ``codes_N``."""
    (V, D), K = table.codebook_VD.shape, table.scaled_VK.shape[1]
    empty = torch.empty(0, dtype=torch.double)
    projection = empty if projection_DI is None else pack(projection_DI, W)
    rows = pack(table.scaled_VK, R * W)
    offset = empty if table.offset_V is None else table.offset_V
    numbers = torch.stack([table.scale, table.norm.double()])
    tensors = [x_NI, projection, empty if shift_D is None else shift_D, rows]
    tensors += [table.codebook_VD.contiguous(), offset, numbers, codes_N]
    step = max(P, PIECE // (V * K) // P * P)
    sizes = [*x_NI.shape, len(projection), V, D, K, len(rows), len(offset), step]
    job = np.array([0, *sizes, *(tensor.data_ptr() for tensor in tensors)])
    work = worker(TYPES[x_NI.dtype])
    threads = min(threads, -(-len(x_NI) // step))
    run_in_team = getattr(openmp(), "GOMP_parallel", None) if threads > 1 else None
    if run_in_team is None:
        work.ctypes(job.ctypes.data)
    else:
        function, job_at = ctypes.c_void_p(work.address), ctypes.c_void_p(job.ctypes.data)
        run_in_team(function, job_at, ctypes.c_uint(threads), ctypes.c_uint(0))
