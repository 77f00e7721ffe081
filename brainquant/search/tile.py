"""Inner products of 4 frames with 16 codes at a time, held in registers.

Written in LLVM's own language: from Python code LLVM does not put the sums into registers.

Suffixes: W codes side by side, R rows of W codes in a cell, P frames, K values of each.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

W, P = 16, 4


def highest_of(R: int):
    """Makes a function for numba code that finds the highest of R products in each lane.

    Its arguments are ``frames`` (P, K), ``table`` (rows of W codes, K, W), the number of a cell of
    R rows, ``lanes`` (P, W) and ``highest`` (P,), all float32 or all float64. It writes the highest
    inner product of each lane of the cell into ``lanes``, and the highest of all lanes into
    ``highest``. With R = 1 the lanes are a matrix product.
    """

    @intrinsic
    def highest_of_cell(typing_context, frames, table, cell, lanes, highest):
        return types.void(frames, table, cell, lanes, highest), write_highest

    def write_highest(context, builder, signature, args):
        frames, table, lanes, highest = (
            context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 1, 3, 4)
        )
        K = cgutils.unpack_tuple(builder, frames.shape)[1]
        scalar = context.get_value_type(signature.args[0].dtype)
        i32, i64, vector = ir.IntType(32), ir.IntType(64), ir.VectorType(scalar, W)
        to_all_lanes = ir.Constant(ir.VectorType(i32, W), [0] * W)
        undefined = ir.Constant(vector, ir.Undefined)

        def index(value):
            return ir.Constant(i64, value)

        def address(array, offset):
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
            codes = address(table.data, builder.mul(number, builder.mul(K, index(W))))
            for pointer in score:
                builder.store(ir.Constant(vector, [0.0] * W), pointer)
            with cgutils.for_range(builder, K) as dim:
                code = as_vector(address(codes, builder.mul(dim.index, index(W))))
                code = builder.load(code, align=4)
                for p, pointer in enumerate(score):
                    at = builder.add(builder.mul(K, index(p)), dim.index)
                    value = builder.load(address(frames.data, at))
                    value = builder.insert_element(undefined, value, ir.Constant(i32, 0))
                    value = builder.shuffle_vector(value, undefined, to_all_lanes)
                    product = builder.fmul(value, code, flags=["contract"])
                    total = builder.fadd(product, builder.load(pointer), flags=["contract"])
                    builder.store(total, pointer)
            for new, pointer in zip(score, best):
                builder.store(larger(builder.load(new), builder.load(pointer)), pointer)
        for p, pointer in enumerate(best):
            value, width = builder.load(pointer), W
            builder.store(value, as_vector(address(lanes.data, index(p * W))), align=4)
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
            builder.store(value, address(highest.data, index(p)))
        return context.get_dummy_value()

    return highest_of_cell
