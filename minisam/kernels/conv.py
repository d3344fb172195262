"""Convolution as matrix products over blocks that stay in the cache (twins in `reference`).

Unfolding (im2col) writes the window of every output pixel as one row of a matrix; the convolution
is then that matrix times the weight. For a whole batch the matrix is kH·kW times the size of the
images, so it is made a few output rows at a time and multiplied while it is still in L2. In NHWC
each kernel row is kW·C contiguous numbers, so a window is kH straight copies.
"""

import numpy as np
from numpy import ndarray as Array

from minisam.kernels.compiled import dense, kernel
from minisam.kernels.threads import parallel_for, scratch

Pair = tuple[int, int]

_BLOCK_BYTES = 512 * 1024  # of unfolded windows: half of a common L2 cache
_MOST_PARTIALS = 16  # partial weight gradients, added up in order


@kernel("void(T[:,:,:,::1], i8, i8, i8, i8, i8, i8, i8, i8, T[:,::1])")
def unfold(x, kH, kW, stride, above, before, H_out, W_out, first_row, windows):
    """Fill windows with those of len(windows) / W_out output rows, counted through the batch."""
    _, H, W, C = x.shape
    for p in range(len(windows)):
        n, r = divmod(first_row + p // W_out, H_out)
        top = r * stride - above
        left = p % W_out * stride - before
        # Of the kW·C numbers of a kernel row, [start, stop) lie inside the image.
        start = min(max(-left, 0), kW) * C
        stop = max(min(W - left, kW) * C, start)
        for i in range(kH):
            to = windows[p, i * kW * C : (i + 1) * kW * C]
            if 0 <= top + i < H:
                to[:start] = 0
                to[stop:] = 0
                # Slices taken beforehand let the compiler vectorise the copy.
                image_row = x[n, top + i].reshape(W * C)
                source = image_row[left * C + start : left * C + stop]
                inside = to[start:stop]
                for k in range(len(inside)):
                    inside[k] = source[k]
            else:
                to[:] = 0


@kernel("void(T[:,::1], T[::1])")
def add_bias(y, b):
    for p in range(len(y)):
        row = y[p]
        for f in range(len(b)):
            row[f] += b[f]


def _row_blocks(n_rows: int, bytes_per_row: int, most: int | None = None) -> list[tuple[int, int]]:
    """Cut rows 0 … n_rows into runs of _BLOCK_BYTES, or into at most so many runs."""
    rows = max(1, _BLOCK_BYTES // bytes_per_row)
    if most:
        rows = max(rows, -(-n_rows // most))
    return [(first, min(first + rows, n_rows)) for first in range(0, n_rows, rows)]


def conv2d(x: Array, W: Array, b: Array, stride: int, padding: Pair, out: Array) -> Array:
    """Write the convolution of x with W, plus b, into out; see `reference.conv2d`."""
    N, H_out, W_out, F = out.shape
    kH, kW, C, _ = W.shape
    x, b = dense(x), dense(b)
    W_matrix = dense(W).reshape(kH * kW * C, F)
    y = out.reshape(N * H_out * W_out, F)
    unfolded, biased = unfold[x.dtype], add_bias[x.dtype]
    blocks = _row_blocks(N * H_out, W_out * kH * kW * C * x.itemsize)

    def block(i: int) -> None:
        first, last = blocks[i]
        windows = scratch(((last - first) * W_out, kH * kW * C), x.dtype)
        unfolded(x, kH, kW, stride, *padding, H_out, W_out, first, windows)
        part = y[first * W_out : last * W_out]
        np.matmul(windows, W_matrix, out=part)
        biased(part, b)

    parallel_for(block, len(blocks))
    return out


def conv2d_weight_grad(x: Array, dy: Array, stride: int, padding: Pair, dW: Array, db: Array) -> None:
    """Write dL/dW and dL/db; see `reference.conv2d_weight_grad`."""
    N, H_out, W_out, F = dy.shape
    kH, kW, C, _ = dW.shape
    x, dy_matrix = dense(x), dense(dy).reshape(N * H_out * W_out, F)
    unfolded = unfold[x.dtype]
    bytes_per_row = W_out * kH * kW * C * x.itemsize
    runs = _row_blocks(N * H_out, bytes_per_row, most=_MOST_PARTIALS)
    partial_dW = np.zeros((len(runs), kH * kW * C, F), x.dtype)
    partial_db = np.zeros((len(runs), F), x.dtype)

    def run(i: int) -> None:
        for first, last in _row_blocks(runs[i][1] - runs[i][0], bytes_per_row):
            first, last = runs[i][0] + first, runs[i][0] + last
            windows = scratch(((last - first) * W_out, kH * kW * C), x.dtype)
            unfolded(x, kH, kW, stride, *padding, H_out, W_out, first, windows)
            part = dy_matrix[first * W_out : last * W_out]
            partial_dW[i] += windows.T @ part
            partial_db[i] += part.sum(axis=0)

    parallel_for(run, len(runs))
    np.sum(partial_dW.reshape(len(runs), *dW.shape), axis=0, out=dW)
    np.sum(partial_db, axis=0, out=db)


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
