"""Convolution as matrix products over blocks that stay in the cache (twins in `reference`).

Unfolding (im2col) writes the window of every output pixel as one column of a matrix; the
convolution is then the weight's product with it. For a whole batch the matrix is kH·kW times the
size of the images, so it is made a few images at a time and multiplied while it is still in L2.
Channel by channel, a row of the matrix is rows of an image, shifted: straight copies.
"""

import math
from collections.abc import Callable

import numpy as np

from minisam.checks import Array
from minisam.kernels import winograd
from minisam.kernels.compiled import dense, kernel
from minisam.kernels.reference import Pair
from minisam.kernels.threads import parallel, runs, scratch

_BLOCK_BYTES = 1 << 19  # of unfolded windows: half of a common L2 cache
_MOST_PARTIALS = 16  # partial weight gradients, added up in order


@kernel("void(T[:,:,:,::1], i8, i8, i8, T[:,::1], T[:,:,:,:,:,::1])")
def unfold(x, stride, above, before, planes, windows):
    """windows[i, j, k, n, r, c] = x[n, r·stride + i - above, c·stride + j - before, k], 0 outside."""
    kH, kW, C, N, H_out, W_out = windows.shape
    for n, r, i in np.ndindex(N, H_out, kH):
        # One image row with its border, channel by channel: then windows are straight copies.
        planes[:], h = 0, r * stride + i - above
        if 0 <= h < x.shape[1]:
            for c in range(max(-before, 0), min(planes.shape[1] - before, x.shape[2])):
                for k in range(C):
                    planes[k, before + c] = x[n, h, c, k]
        for j, k in np.ndindex(kW, C):
            to, source = windows[i, j, k, n, r], planes[k, j:]
            if stride == 1:  # a loop of its own, which vectorises
                for c in range(W_out):
                    to[c] = source[c]
            else:
                for c in range(W_out):
                    to[c] = source[c * stride]


def _windows(x: Array, unfolded: Callable, kernel: Pair, stride: int, padding: Pair, out_size: Pair) -> Array:
    """The windows of some images as columns (kH·kW·C, n·H_out·W_out), in scratch memory."""
    C, width = x.shape[3], (out_size[1] - 1) * stride + kernel[1]
    planes, windows = scratch(x.dtype, (C, width), (*kernel, C, len(x), *out_size))
    unfolded(x, stride, *padding, planes, windows)
    return windows.reshape(math.prod(kernel) * C, -1)


def _images_in_a_block(y: Array, W: Array) -> int:
    return max(1, _BLOCK_BYTES // (math.prod(y.shape[1:3]) * math.prod(W.shape[:3]) * W.itemsize))


def conv2d(x: Array, W: Array, b: Array, stride: int, padding: Pair, out: Array) -> Array:
    """Write the convolution of x with W, plus b, into out; see `reference.conv2d`."""
    if winograd.suits(W, stride):
        return winograd.conv2d(x, W, b, padding, out)
    kernel, out_size, F = W.shape[:2], out.shape[1:3], len(b)
    x, W_matrix, unfolded = dense(x), dense(W).reshape(-1, F), unfold[x.dtype]

    def images(first: int, last: int) -> None:
        y = out[first:last].reshape(-1, F)
        np.matmul(_windows(x[first:last], unfolded, kernel, stride, padding, out_size).T, W_matrix, out=y)
        y += b

    parallel(images, len(x), _images_in_a_block(out, W))
    return out


def conv2d_weight_grad(x: Array, dy: Array, stride: int, padding: Pair, dW: Array, db: Array) -> None:
    """Write dL/dW and dL/db; see `reference.conv2d_weight_grad`."""
    if winograd.suits(dW, stride):
        winograd.conv2d_weight_grad(x, dy, padding, dW, db)
        return
    x, dy, F, unfolded = dense(x), dense(dy), len(db), unfold[x.dtype]
    block = _images_in_a_block(dy, dW)

    def images(first: int, last: int) -> Array:
        partial = np.zeros((dW.size // F + 1, F), x.dtype)  # dL/dW, and dL/db as its last row
        for i, j in runs(last - first, block):
            part = slice(first + i, first + j)
            slopes = dy[part].reshape(-1, F)
            windows = _windows(x[part], unfolded, dW.shape[:2], stride, padding, dy.shape[1:3])
            partial[:-1] += windows @ slopes
            partial[-1] += np.ones(len(slopes), x.dtype) @ slopes  # faster than sum
        return partial

    total = np.sum(parallel(images, len(x), max(block, -(-len(x) // _MOST_PARTIALS))), axis=0)
    dW[...], db[...] = total[:-1].reshape(dW.shape), total[-1]


def conv2d_input_grad(dy: Array, W: Array, stride: int, padding: Pair, out: Array) -> Array:
    """Write dL/dx; see `reference.conv2d_input_grad`.

    The gradient is itself a convolution: of dy, spread out by the stride, with the kernel turned
    by 180° and its channel axes swapped. Nothing is scattered, so blocks never write to one place.
    """
    N, H_out, W_out, F = dy.shape
    kH, kW, C, _ = W.shape
    if stride > 1:
        spread = np.zeros((N, (H_out - 1) * stride + 1, (W_out - 1) * stride + 1, F), dy.dtype)
        spread[:, ::stride, ::stride] = dy
        dy = spread
    turned = W[::-1, ::-1].transpose(0, 1, 3, 2)
    return conv2d(dy, turned, np.zeros(C, dy.dtype), 1, (kH - 1 - padding[0], kW - 1 - padding[1]), out)
