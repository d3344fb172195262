"""The innermost loop of convolutions and matrix products, in the processor's registers (twin: `reference.strip`).

A core multiplies much faster than memory delivers: 32 products and 32 sums in a cycle, where the
nearest cache hands over 32 numbers at best. So each number, once loaded, must be used many times. A tile
of the result, here 8 rows of two vectors (a vector is 16 float32 in one register of AVX-512), stays in
registers until it is finished. At each step it takes a number of A for each row and two vectors of B,

    C[m, :] += A[m, p] · B[p, :]                 8 + 2 loads for 16 vector products and sums

and touches C's memory only at the end. Numba compiles plain loops well, but will not keep a tile in
registers; so the tile is written in the compiler's own language (LLVM's), one vector a variable.

All three passes of a convolution are such sums. The windows of neighbouring pixels overlap in memory, and
A need not be a matrix: with free steps its row m is a window, C·stride numbers after the one before. Nothing
is unfolded (im2col), and A is read from the cache as often as B.

    y[c, :]   = b + Σᵢ Σₚ x[row i of the window at c, p] · W[i, p, :]        p over kW·C numbers of a row
    dW[p, :] += Σᵣ Σ꜀     x[row r, c·stride + p] · dy[r, c, :]               p over the same

The gradient dx is the first sum again, with other arguments (see `conv`).
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from minisam.checks import Array
from minisam.kernels import reference
from minisam.kernels.compiled import dense

_FEATURES = numba.config.CPU_FEATURES or llvmlite.binding.get_host_cpu_features().flatten()
_VECTOR_BYTES = 64 if "+avx512f" in _FEATURES else 32 if "+avx" in _FEATURES else 16
_MANY_REGISTERS = _VECTOR_BYTES == 64 or platform.machine().lower() in ("arm64", "aarch64")  # 32 of them, not 16
_ROWS = (8, 4, 2, 1) if _MANY_REGISTERS else (6, 4, 2, 1)  # of a tile: its sums must leave room for A and B


def lanes(dtype: np.dtype) -> int:
    """Numbers in a vector."""
    return _VECTOR_BYTES // dtype.itemsize


@contextmanager
def _rolled(builder: ir.IRBuilder, count: ir.Value) -> Iterator[ir.Value]:
    """A loop that the compiler must not unroll: with nine steps, those left over would cost more than it gains."""
    with cgutils.for_range(builder, count) as loop:
        yield loop.index
    _, last_block = loop.index.incomings[1]
    label = builder.module.add_metadata([ir.IntType(32)(len(builder.module.metadata))])
    label.operands = (label, builder.module.add_metadata(["llvm.loop.unroll.disable"]))  # LLVM wants it to name itself
    last_block.terminator.set_metadata("llvm.loop", label)


@intrinsic
def _strip(typing_context, n, length, A, a, a_steps, B, b, b_steps, S, s, s_step, C, c, c_step, R, P, floor):
    """`reference.strip` from tiles of a few rows by one or two vectors."""

    def generate(context, builder, signature, args):
        n, length, A_, a, a_steps, B_, b, b_steps, S_, s, s_step, C_, c, c_step, R, P, floor = args
        of_zero = isinstance(S, numba.types.NoneType)
        arrays = ((A, A_), (B, B_), (C, C_)) if of_zero else ((A, A_), (B, B_), (C, C_), (S, S_))
        from_A, from_B, to_C, *from_S = (context.make_array(t)(context, builder, array).data for t, array in arrays)
        (a_m, a_r, a_p), (b_r, b_p) = (cgutils.unpack_tuple(builder, steps) for steps in (a_steps, b_steps))
        number, constant, n_lanes = context.get_value_type(A.dtype), n.type, lanes(np.dtype(A.dtype.name))
        vector, add, times, one = ir.VectorType(number, n_lanes), builder.add, builder.mul, A.dtype.bitwidth // 8

        def vector_at(data, place, v):
            return builder.bitcast(builder.gep(data, [add(place, constant(v * n_lanes))]), vector.as_pointer())

        def everywhere(x):
            """A vector of x's."""
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), x, ir.IntType(32)(0))
            return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), n_lanes), None))

        def tile(m, j, rows, vectors):
            """Rows from m and columns from j on. The sums are variables, which the compiler keeps in registers."""
            row = [add(m, constant(i)) for i in range(rows)]
            sums = {(i, v): cgutils.alloca_once(builder, vector) for i in range(rows) for v in range(vectors)}
            for (i, v), total in sums.items():
                start = add(add(s, j), times(row[i], s_step))
                found = (
                    ir.Constant(vector, None) if of_zero else builder.load(vector_at(from_S[0], start, v), align=one)
                )
                builder.store(found, total)
            with _rolled(builder, R) as r, _rolled(builder, P) as p:
                here = add(add(b, j), add(times(r, b_r), times(p, b_p)))
                of_B = [builder.load(vector_at(from_B, here, v), align=one) for v in range(vectors)]
                here = add(a, add(times(r, a_r), times(p, a_p)))
                of_A = [builder.load(builder.gep(from_A, [add(here, times(row[i], a_m))])) for i in range(rows)]
                for (i, v), total in sums.items():
                    product = builder.fmul(everywhere(of_A[i]), of_B[v], flags=("contract",))
                    # "contract": one instruction for both, rounded once
                    builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
            least = everywhere(floor)
            for (i, v), total in sums.items():
                found = builder.load(total)
                found = builder.select(builder.fcmp_unordered(">", found, least), found, least)  # a NaN stays a NaN
                place = add(add(c, j), times(row[i], c_step))
                builder.store(found, vector_at(to_C, place, v), align=one)

        def in_pieces(total, sizes, piece):
            """Loops that cut 0 … total - 1 into pieces of these sizes, the first as often as it fits."""
            done = constant(0)
            for size in sizes:
                count = builder.sdiv(builder.sub(total, done), constant(size))
                with cgutils.for_range(builder, count) as i:
                    piece(add(done, times(i.index, constant(size))), size)
                done = add(done, times(count, constant(size)))

        def columns(j, width):
            in_pieces(n, _ROWS, lambda m, rows: tile(m, j, rows, width // n_lanes))

        in_pieces(length, (2 * n_lanes, n_lanes), columns)
        return context.get_dummy_value()

    i8, pair, triple = numba.i8, numba.types.UniTuple(numba.i8, 2), numba.types.UniTuple(numba.i8, 3)
    return numba.void(i8, i8, A, i8, triple, B, i8, pair, S, i8, i8, C, i8, i8, i8, i8, A.dtype), generate


strip = reference.strip if numba.config.DISABLE_JIT else _strip


@numba.njit(nogil=True, error_model="numpy")
def surrounded(image, above, before, padded):
    """The image with zeros around it, in `padded`; the image itself if no window leaves it."""
    rows, columns, C = padded.shape
    H, W, _ = image.shape
    if above == 0 and before == 0 and rows <= H and columns <= W:
        return image
    first = max(0, -before)  # a negative border cuts off pixels
    last = max(first, min(W, columns - before))
    for h in range(max(0, -above), min(H, rows - above)):
        source = image[h].reshape(W * C)[first * C : last * C]
        to = padded[h + above].reshape(columns * C)[(first + before) * C :]
        for k in range(len(source)):
            to[k] = source[k]
    return padded


@numba.njit(nogil=True, error_model="numpy")
def add_rows(image, row_sums):
    """row_sums += the image's rows, each of them one vector: long loops are fast."""
    H, W, C = image.shape
    for r in range(H):
        row = image[r].reshape(W * C)
        for k in range(W * C):
            row_sums[k] += row[k]


def whole_vectors(x: Array) -> Array:
    """x with zeros appended to its last axis, up to whole vectors; x itself if it has them."""
    missing = -x.shape[-1] % lanes(x.dtype)
    if not missing:
        return dense(x)
    wider = np.zeros((*x.shape[:-1], x.shape[-1] + missing), x.dtype)
    wider[..., :-missing] = x
    return wider
