"""Convolution as matrix products over blocks that stay in the cache (twins in `reference`).

Unfolding (im2col) writes the window of every output pixel as one column of a matrix; the
convolution is then the weight's product with it. For a whole batch the matrix is kH·kW times the
size of the images, so it is made a few output rows at a time and multiplied while it is still in
L2. A last row of ones takes the bias along: b is one more row of the weight.
"""

import numpy as np
from numpy import ndarray as Array

from minisam.kernels import winograd
from minisam.kernels.compiled import dense, kernel
from minisam.kernels.threads import parallel_for, scratch

Pair = tuple[int, int]

_BLOCK_BYTES = 1 << 19  # of unfolded windows: half of a common L2 cache
_MOST_PARTIALS = 16  # partial weight gradients, added up in order


@kernel("void(T[:,:,:,::1], i8, i8, i8, i8, i8, i8, i8, i8, T[:,::1], T[:,::1])")
def unfold(x, kH, kW, stride, above, before, H_out, W_out, first_row, planes, windows):
    """Fill windows with those of some output rows, counted through the batch, and a row of ones."""
    _, H, W, C = x.shape
    width = planes.shape[1]
    windows[kH * kW * C] = 1
    for p in range(windows.shape[1] // W_out):
        n, r = divmod(first_row + p, H_out)
        for i in range(kH):
            # One image row with its border, channel by channel: then windows are straight copies.
            row = r * stride - above + i
            planes[:] = 0
            if 0 <= row < H:
                pixels = x[n, row]
                for c in range(max(-before, 0), min(width - before, W)):
                    for k in range(C):
                        planes[k, before + c] = pixels[c, k]
            for j in range(kW):
                for k in range(C):
                    to = windows[(i * kW + j) * C + k, p * W_out : (p + 1) * W_out]
                    source = planes[k, j:]
                    if stride == 1:
                        for c in range(W_out):
                            to[c] = source[c]
                    else:
                        for c in range(W_out):
                            to[c] = source[c * stride]


def _block_rows(W_out: int, n_windows: int, itemsize: int) -> int:
    return max(1, _BLOCK_BYTES // (W_out * n_windows * itemsize))


def conv2d(x: Array, W: Array, b: Array, stride: int, padding: Pair, out: Array) -> Array:
    """Write the convolution of x with W, plus b, into out; see `reference.conv2d`."""
    if winograd.suits(W, stride):
        return winograd.conv2d(x, W, b, padding, out)
    N, H_out, W_out, F = out.shape
    kH, kW, C, _ = W.shape
    width = (W_out - 1) * stride + kW
    x, unfolded = dense(x), unfold[x.dtype]
    W_and_b = np.concatenate([W.reshape(-1, F), b.reshape(1, F)])
    y = out.reshape(-1, F)

    def rows(first: int, last: int) -> None:
        planes, windows = scratch(x.dtype, (C, width), (len(W_and_b), (last - first) * W_out))
        unfolded(x, kH, kW, stride, *padding, H_out, W_out, first, planes, windows)
        np.matmul(windows.T, W_and_b, out=y[first * W_out : last * W_out])

    parallel_for(rows, N * H_out, _block_rows(W_out, len(W_and_b), x.itemsize))
    return out


def conv2d_weight_grad(x: Array, dy: Array, stride: int, padding: Pair, dW: Array, db: Array) -> None:
    """Write dL/dW and dL/db; see `reference.conv2d_weight_grad`."""
    if winograd.suits(dW, stride):
        winograd.conv2d_weight_grad(x, dy, padding, dW, db)
        return
    N, H_out, W_out, F = dy.shape
    kH, kW, C, _ = dW.shape
    x, dy_matrix, unfolded = dense(x), dense(dy).reshape(-1, F), unfold[x.dtype]
    n_windows, width = kH * kW * C + 1, (W_out - 1) * stride + kW
    block = _block_rows(W_out, n_windows, x.itemsize)
    run = max(block, -(-N * H_out // _MOST_PARTIALS))
    partials = np.zeros((-(-N * H_out // run), n_windows, F), x.dtype)

    def rows(first: int, last: int) -> None:
        for start in range(first, last, block):
            stop = min(start + block, last)
            n = (stop - start) * W_out
            planes, windows, product = scratch(x.dtype, (C, width), (n_windows, n), (n_windows, F))
            unfolded(x, kH, kW, stride, *padding, H_out, W_out, start, planes, windows)
            part = dy_matrix[start * W_out : stop * W_out]
            partials[first // run] += np.matmul(windows, part, out=product)

    parallel_for(rows, N * H_out, run)
    total = partials.sum(axis=0)
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
