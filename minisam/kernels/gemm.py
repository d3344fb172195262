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
_WORTH_A_RUN = 1 << 19  # multiply-adds
_MOST_RUNS = 8


@kernel("void(T[::1], i8, i8, T[:,::1], T[:,::1], i8, i8)")
def multiply_run(run, start, stop, a, a_row, a_step, b, out, rows, columns):
    """out[m, j] = Σₖ a[m·a_row + k·a_step] b[k, j], by runs of `rows` or of `columns`, of which the other is 0."""
    (K, N), M, no_floor = b.shape, len(out), b.dtype.type(-np.inf)
    top, bottom, left, right = 0, M, 0, N
    if rows:
        top, bottom = start * rows, min(M, stop * rows)
    else:
        left, right = start * columns, min(N, stop * columns)
    of_b, to, place = b.reshape(K * N), out.reshape(out.size), top * N + left
    n, width = bottom - top, right - left
    out[top:bottom, left:right] = 0
    for k in range(0, K, _DEPTH):
        first, steps, depth = top * a_row + k * a_step, (a_row, 0, a_step), min(_DEPTH, K - k)
        strip(n, width, a, first, steps, of_b, k * N + left, (0, N), to, place, N, to, place, N, 1, depth, no_floor)


def matmul(a: Array, b: Array, out: Array) -> Array:
    """out = a b, with a (M, K), b (K, N) and out (M, N); see `reference.matmul`."""
    (M, K), N = a.shape, b.shape[1]
    transposed = a.T.flags.carray and not a.flags.carray  # as in dW = xᵀ dy: read where it lies
    flat, row, step = (a.T.reshape(-1), 1, M) if transposed else (dense(a).reshape(-1), K, 1)
    b = whole_vectors(b)
    width = b.shape[1]
    wide = out if width == N and out.flags.carray else np.empty((M, width), out.dtype)
    rows, columns = (1, 0) if M >= N else (0, 2 * lanes(b.dtype))
    n = M if rows else -(-width // columns)
    count = max(1, min(_MOST_RUNS, M * K * N // _WORTH_A_RUN, n))
    parallel(multiply_run, n, count, flat, row, step, b, wide, rows, columns)
    if wide is not out:
        out[...] = wide[:, :N]
    return out
