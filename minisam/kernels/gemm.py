"""Matrix products from register tiles (see `tile`), shared out among threads.

A tile reads b row by row where it lies, but only a part of its depth at a time, so that this part stays in
the cache while all rows of a pass by. Threads take rows of the result, or columns if there are more.
"""

import numpy as np

from minisam.checks import Array
from minisam.kernels.compiled import dense, kernel
from minisam.kernels.threads import parallel
from minisam.kernels.tile import lanes, strip, whole_vectors

_DEPTH = 256  # rows of b at a time
_WORTH_A_THREAD = 1 << 21  # multiply-adds: below, waking a thread costs more than it brings
_MOST_BLOCKS = 8


@kernel("void(T[::1], i8, i8, T[:,::1], T[:,::1], i8, i8, i8, i8)")
def multiply(a, a_row, a_step, b, out, top, bottom, left, right):
    """out[m, j] = Σₖ a[m·a_row + k·a_step] b[k, j] for m from top to bottom and j from left to right."""
    (K, N), n, width, no_floor = b.shape, bottom - top, right - left, b.dtype.type(-np.inf)
    of_b, to, place = b.reshape(K * N), out.reshape(out.size), top * N + left
    out[top:bottom, left:right] = 0
    for k in range(0, K, _DEPTH):
        first, steps, depth = top * a_row + k * a_step, (a_row, 0, a_step), min(_DEPTH, K - k)
        strip(n, width, a, first, steps, of_b, k * N + left, (0, N), to, place, N, to, place, N, 1, depth, no_floor)


def matmul(a: Array, b: Array, out: Array) -> Array:
    """out = a b, with a (M, K), b (K, N) and out (M, N); see `reference.matmul`."""
    (M, K), N = a.shape, b.shape[1]
    run = multiply[a.dtype]
    transposed = a.T.flags.carray and not a.flags.carray  # as in dW = xᵀ dy: read where it lies
    flat, row, step = (a.T.reshape(-1), 1, M) if transposed else (dense(a).reshape(-1), K, 1)
    b = whole_vectors(b)
    width, unit = b.shape[1], 2 * lanes(b.dtype)
    wide = out if width == N and out.flags.carray else np.empty((M, width), out.dtype)

    def rows(start: int, stop: int) -> None:
        run(flat, row, step, b, wide, start, stop, 0, width)

    def columns(start: int, stop: int) -> None:
        run(flat, row, step, b, wide, 0, M, start * unit, min(stop * unit, width))

    by_rows = M >= N
    units = M if by_rows else -(-width // unit)
    n_blocks = max(1, min(_MOST_BLOCKS, M * K * N // _WORTH_A_THREAD, units))
    parallel(rows if by_rows else columns, units, -(-units // n_blocks))
    if wide is not out:
        out[...] = wide[:, :N]
    return out
