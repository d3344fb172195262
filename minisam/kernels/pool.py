"""Max pooling, an image at a time (twins in `reference`).

The innermost loop runs over channels, which are contiguous, so that it vectorises.
"""

import numpy as np
from numpy import ndarray as Array

from minisam.kernels.compiled import dense, kernel
from minisam.kernels.threads import parallel_for


@kernel("void(T[:,:,::1], i8, i8, T[:,:,::1], u1[:,:,::1])")
def max_pool_image(x, size, stride, y, winner):
    H_out, W_out, C = y.shape
    for r in range(H_out):
        for c in range(W_out):
            best, place = y[r, c], winner[r, c]
            best[:] = x[r * stride, c * stride]
            place[:] = 0
            for i in range(size):
                for j in range(size):
                    candidate = x[r * stride + i, c * stride + j]
                    for k in range(C):
                        v, b = candidate[k], best[k]
                        # A NaN wins over numbers, and the first NaN stays.
                        wins = (v > b) | ((v != v) & (b == b))
                        best[k] = v if wins else b
                        place[k] = np.uint8(i * size + j) if wins else place[k]


@kernel("void(T[:,:,::1], u1[:,:,::1], i8, i8, T[:,:,::1])")
def max_pool_image_grad(dy, winner, size, stride, dx):
    H_out, W_out, C = dy.shape
    zero = dx.dtype.type(0)
    dx[:] = zero
    for r in range(H_out):
        for c in range(W_out):
            g, place = dy[r, c], winner[r, c]
            for i in range(size):
                for j in range(size):
                    to = dx[r * stride + i, c * stride + j]
                    for k in range(C):
                        to[k] += g[k] if place[k] == i * size + j else zero


def max_pool2d(x: Array, size: int, stride: int, out: Array, winner: Array) -> Array:
    """Each window's maximum into out, its place into winner (uint8); see `reference.max_pool2d`."""
    x, pool = dense(x), max_pool_image[x.dtype]
    parallel_for(lambda n, _: pool(x[n], size, stride, out[n], winner[n]), len(x))
    return out


def max_pool2d_grad(dy: Array, winner: Array, size: int, stride: int, out: Array) -> Array:
    """dL/dx into out; see `reference.max_pool2d_grad`."""
    dy, pool = dense(dy), max_pool_image_grad[dy.dtype]
    parallel_for(lambda n, _: pool(dy[n], winner[n], size, stride, out[n]), len(dy))
    return out
