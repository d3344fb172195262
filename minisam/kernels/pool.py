"""Max pooling, a few images at a time (twins in `reference`).

A place of the window at a time, over a whole row of outputs: the innermost loop runs over channels,
which are contiguous, so that it vectorises.
"""

import numpy as np

from minisam.checks import Array
from minisam.kernels.compiled import dense, kernel
from minisam.kernels.threads import n_runs, parallel

_RUN = 1 << 15  # numbers in the images that a thread takes at once


@kernel("void(T[:,:,:,::1], i8, i8, T[:,:,:,::1], u1[:,:,:,::1])")
def max_pool_images(run, start, stop, x, size, stride, y, winner):
    _, H_out, W_out, C = y.shape
    for image, r, p in np.ndindex(stop - start, H_out, size * size):
        n = start + image
        i, j = divmod(p, size)
        row, best, place = x[n, r * stride + i], y[n, r], winner[n, r]
        for c in range(W_out):
            for k in range(C):
                v, b = row[c * stride + j, k], best[c, k]
                # A NaN wins over numbers, and the first NaN stays.
                wins = (p == 0) | (v > b) | ((v != v) & (b == b))
                best[c, k] = v if wins else b
                place[c, k] = np.uint8(p) if wins else place[c, k]


@kernel("void(T[:,:,:,::1], u1[:,:,:,::1], i8, i8, T[:,:,:,::1])")
def max_pool_images_grad(run, start, stop, dy, winner, size, stride, dx):
    _, H_out, W_out, C = dy.shape
    zero = dx.dtype.type(0)
    dx[start:stop] = zero
    for image, r, p in np.ndindex(stop - start, H_out, size * size):
        n = start + image
        i, j = divmod(p, size)
        to, g, place = dx[n, r * stride + i], dy[n, r], winner[n, r]
        for c in range(W_out):
            for k in range(C):
                to[c * stride + j, k] += g[c, k] if place[c, k] == p else zero


@kernel("void(T[:,:,:,::1], u1[:,:,:,::1], i8, i8, T[:,:,:,::1])")
def picked_images(run, start, stop, x, winner, size, stride, y):
    _, H_out, W_out, C = y.shape
    for image, r, p in np.ndindex(stop - start, H_out, size * size):
        n = start + image
        i, j = divmod(p, size)
        row, to, place = x[n, r * stride + i], y[n, r], winner[n, r]
        for c in range(W_out):
            for k in range(C):
                to[c, k] = row[c * stride + j, k] if place[c, k] == p else to[c, k]


def max_pool2d(x: Array, size: int, stride: int, out: Array, winner: Array) -> Array:
    """Each window's maximum into out, its place into winner (uint8); see `reference.max_pool2d`."""
    parallel(max_pool_images, len(x), _n_runs(x), dense(x), size, stride, out, winner)
    return out


def max_pool2d_picked(x: Array, winner: Array, size: int, stride: int, out: Array) -> Array:
    """What x has in the winners' places into out; see `reference.max_pool2d_picked`."""
    parallel(picked_images, len(x), _n_runs(x), dense(x), winner, size, stride, out)
    return out


def max_pool2d_grad(dy: Array, winner: Array, size: int, stride: int, out: Array) -> Array:
    """dL/dx into out; see `reference.max_pool2d_grad`."""
    parallel(max_pool_images_grad, len(dy), _n_runs(out), dense(dy), winner, size, stride, out)
    return out


def _n_runs(x: Array) -> int:
    return n_runs(len(x), max(1, _RUN // x[0].size))
