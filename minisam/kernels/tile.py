"""The innermost loop of a convolution, in the processor's registers (twins in `reference`).

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
_SIZES = (8, 4, 2, 1) if _MANY_REGISTERS else (6, 4, 2, 1)  # rows of a tile: the sums must leave room for A and B
_VECTORS = 2  # of a tile's row, at most
TILE_BYTES = _VECTORS * _VECTOR_BYTES  # of such a row


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
def _strip(typing_context, n, width, A, a, a_steps, B, b, b_steps, S, s, s_step, C, c, c_step, R, P, floor):
    """`reference.strip` from tiles of 8, 4, 2 and 1 rows, each in registers until it is finished."""

    def generate(context, builder, signature, args):
        n, width, A_, a, a_steps, B_, b, b_steps, S_, s, s_step, C_, c, c_step, R, P, floor = args
        a_m, a_r, a_p = cgutils.unpack_tuple(builder, a_steps)
        b_r, b_p = cgutils.unpack_tuple(builder, b_steps)
        data = [context.make_array(t)(context, builder, v).data for t, v in ((A, A_), (B, B_), (S, S_), (C, C_))]
        A_data, B_data, S_data, C_data = data
        number, index, n_lanes = context.get_value_type(A.dtype), n.type, lanes(np.dtype(A.dtype.name))
        vector, bytes_ = ir.VectorType(number, n_lanes), A.dtype.bitwidth // 8
        add, times, constant = builder.add, builder.mul, index

        def vector_at(array, place, v):
            return builder.bitcast(builder.gep(array, [add(place, constant(v * n_lanes))]), vector.as_pointer())

        def load(array, place, v):
            return builder.load(vector_at(array, place, v), align=bytes_)

        def everywhere(x):
            """A vector of x's."""
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), x, ir.IntType(32)(0))
            return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), n_lanes), None))

        least = everywhere(floor)

        def tile(m, rows, vectors):
            """Rows m to m + rows - 1. The sums are variables of their own, which the compiler keeps in registers."""
            places = [(i, v) for i in range(rows) for v in range(vectors)]
            sums = {place: cgutils.alloca_once(builder, vector) for place in places}
            row = [add(m, constant(i)) for i in range(rows)]
            for i, v in places:
                builder.store(load(S_data, add(s, times(row[i], s_step)), v), sums[i, v])
            with _rolled(builder, R) as r, _rolled(builder, P) as p:
                here = add(b, add(times(r, b_r), times(p, b_p)))
                of_B = [load(B_data, here, v) for v in range(vectors)]
                here = add(a, add(times(r, a_r), times(p, a_p)))
                for i in range(rows):
                    x = everywhere(builder.load(builder.gep(A_data, [add(here, times(row[i], a_m))])))
                    for v in range(vectors):
                        product = builder.fmul(x, of_B[v], flags=("contract",))  # with the sum: one instruction
                        total = builder.fadd(builder.load(sums[i, v]), product, flags=("contract",))
                        builder.store(total, sums[i, v])
            for i, v in places:
                total = builder.load(sums[i, v])
                total = builder.select(builder.fcmp_unordered(">", total, least), total, least)  # a NaN stays a NaN
                builder.store(total, vector_at(C_data, add(c, times(row[i], c_step)), v), align=bytes_)

        for vectors in range(1, _VECTORS + 1):
            with builder.if_then(builder.icmp_signed("==", width, constant(vectors * n_lanes))):
                done = constant(0)
                for rows in _SIZES:
                    count = builder.sdiv(builder.sub(n, done), constant(rows))
                    with cgutils.for_range(builder, count) as i:
                        tile(add(done, times(i.index, constant(rows))), rows, vectors)
                    done = add(done, times(count, constant(rows)))
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
