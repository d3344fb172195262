"""Max pooling, a few images at a time (twins in `reference`).

A place of the window at a time, over a whole row of outputs: the innermost loop runs over channels,
which are contiguous, so that it vectorises.
"""

import numpy as np

from minisam.checks import Array
from minisam.kernels.compiled import dense, kernel
from minisam.kernels.threads import parallel

_BLOCK = 1 << 16  # numbers in the images that a thread takes at once


@kernel("void(T[:,:,:,::1], i8, i8, T[:,:,:,::1], u1[:,:,:,::1])")
def max_pool_images(x, size, stride, y, winner):
    N, H_out, W_out, C = y.shape
    for n, r, p in np.ndindex(N, H_out, size * size):
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
def max_pool_images_grad(dy, winner, size, stride, dx):
    N, H_out, W_out, C = dy.shape
    zero = dx.dtype.type(0)
    dx[:] = zero
    for n, r, p in np.ndindex(N, H_out, size * size):
        i, j = divmod(p, size)
        to, g, place = dx[n, r * stride + i], dy[n, r], winner[n, r]
        for c in range(W_out):
            for k in range(C):
                to[c * stride + j, k] += g[c, k] if place[c, k] == p else zero


@kernel("void(T[:,:,:,::1], u1[:,:,:,::1], i8, i8, T[:,:,:,::1])")
def picked_images(x, winner, size, stride, y):
    N, H_out, W_out, C = y.shape
    for n, r, p in np.ndindex(N, H_out, size * size):
        i, j = divmod(p, size)
        row, to, place = x[n, r * stride + i], y[n, r], winner[n, r]
        for c in range(W_out):
            for k in range(C):
                to[c, k] = row[c * stride + j, k] if place[c, k] == p else to[c, k]


def max_pool2d(x: Array, size: int, stride: int, out: Array, winner: Array) -> Array:
    """Each window's maximum into out, its place into winner (uint8); see `reference.max_pool2d`."""
    x, pool = dense(x), max_pool_images[x.dtype]
    parallel(lambda i, j: pool(x[i:j], size, stride, out[i:j], winner[i:j]), len(x), max(1, _BLOCK // x[0].size))
    return out


def max_pool2d_picked(x: Array, winner: Array, size: int, stride: int, out: Array) -> Array:
    """What x has in the winners' places into out; see `reference.max_pool2d_picked`."""
    x, pick = dense(x), picked_images[x.dtype]
    parallel(lambda i, j: pick(x[i:j], winner[i:j], size, stride, out[i:j]), len(x), max(1, _BLOCK // x[0].size))
    return out


def max_pool2d_grad(dy: Array, winner: Array, size: int, stride: int, out: Array) -> Array:
    """dL/dx into out; see `reference.max_pool2d_grad`."""
    dy, pool = dense(dy), max_pool_images_grad[dy.dtype]
    run = max(1, _BLOCK // out[0].size)
    parallel(lambda i, j: pool(dy[i:j], winner[i:j], size, stride, out[i:j]), len(dy), run)
    return out
