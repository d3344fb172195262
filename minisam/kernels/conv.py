"""Convolution: all three passes from one loop over tiles (see `tile`; twins in `reference`).

Here the work is cut into blocks of images, one for each call of a compiled loop; channels are filled up to
whole vectors; and the input gradient becomes a convolution.
"""

import math

import numpy as np

from minisam.checks import Array
from minisam.kernels import winograd
from minisam.kernels.compiled import dense, kernel
from minisam.kernels.reference import Pair
from minisam.kernels.threads import n_runs, parallel
from minisam.kernels.tile import add_rows, strip, surrounded, whole_vectors

_WORK = 1 << 21  # multiply-adds that a thread takes at once: some 50 µs
_MOST_PARTIALS = 8  # partial weight gradients, added up in order
_FEWEST_PIXELS = 512  # of y, for each of them: then adding them up takes little time


@kernel("void(T[:,:,:,::1], T[:,:,:,::1], T[::1], i8, i8, i8, T[:,:,:,::1], i8, i8, i8, T)")
def convolve_images(run, start, stop, x, W, b, stride, above, before, y, top, left, spacing, floor):
    """y[n, top + r·spacing, left + c·spacing, :] = max(b + the product of W with the window of x[n] at (r, c), floor).

    W and b have whole vectors of channels, of which y may lack the last few.
    """
    (kH, kW, C, F), (_, H, columns, C_out) = W.shape, y.shape
    H_out, W_out = (H - top + spacing - 1) // spacing, (columns - left + spacing - 1) // spacing
    padded = np.zeros(((H_out - 1) * stride + kH, (W_out - 1) * stride + kW, C), x.dtype)
    weights, of_W, n, whole = W.reshape(W.size), (kW * C * F, F), kW * C, C_out == F
    wide = np.empty(0 if whole else W_out * F, x.dtype)  # a row of y with whole vectors
    for i in range(start, stop):
        image, pixels = surrounded(x[i], above, before, padded), y[i].reshape(H * columns * C_out)
        row = image.shape[1] * C
        windows, of_x = image.reshape(len(image) * row), (stride * C, row, 1)
        for r in range(H_out):
            at, to = r * stride * row, ((top + r * spacing) * columns + left) * C_out
            target, first, step = (pixels, to, spacing * F) if whole else (wide, 0, F)
            strip(W_out, F, windows, at, of_x, weights, 0, of_W, b, 0, 0, target, first, step, kH, n, floor)
            if not whole:
                for c in range(W_out):
                    for k in range(C_out):
                        pixels[to + c * spacing * C_out + k] = wide[c * F + k]


@kernel("void(T[:,:,:,::1], T[:,:,:,::1], i8, i8, i8, T[:,:,:,:,::1], T[:,::1])")
def correlate_images(run, start, stop, x, dy, stride, above, before, partial_dW, row_sums):
    """dW[i, j, k, f] = Σₙᵣ꜀ x[n, r·stride + i - above, c·stride + j - before, k] dy[n, r, c, f], for these images n.

    row_sums[run, (c, f)] = Σₙᵣ dy[n, r, c, f]: what is left of db to add up. F is whole vectors.
    """
    (_, H, columns, F), (_, kH, kW, C, _) = dy.shape, partial_dW.shape
    sums, n, no_floor = partial_dW[run].reshape(kH * kW * C * F), kW * C, x.dtype.type(-np.inf)
    padded = np.zeros(((H - 1) * stride + kH, (columns - 1) * stride + kW, C), x.dtype)
    sums[:], row_sums[run] = 0, 0
    for i in range(start, stop):
        image, slopes = surrounded(x[i], above, before, padded), dy[i].reshape(H * columns * F)
        row, of_dy = image.shape[1] * C, (columns * F, F)
        pixels, of_x = image.reshape(len(image) * row), (1, stride * row, stride * C)
        for k in range(kH):
            to = k * n * F
            strip(n, F, pixels, k * row, of_x, slopes, 0, of_dy, sums, to, F, sums, to, F, H, columns, no_floor)
        add_rows(dy[i], row_sums[run])


def conv2d(x: Array, W: Array, b: Array, stride: int, padding: Pair, out: Array, floor: float = -math.inf) -> Array:
    """Write the convolution of x with W, plus b, or floor where that is more, into out; see `reference.conv2d`."""
    return _convolve(x, W, b, stride, padding, out, floor)


def _convolve(
    x: Array, W: Array, b: Array, stride: int, padding: Pair, out: Array, floor: float,
    start: Pair = (0, 0), spacing: int = 1,
) -> Array:  # fmt: skip
    """A convolution that fills only the pixels of out that are `spacing` apart from `start` on."""
    if spacing == 1 and winograd.suits(W, stride, out):
        return winograd.conv2d(x, W, b, padding, out, floor)
    W = whole_vectors(W)
    pixels = out[0, start[0] :: spacing, start[1] :: spacing, 0].size
    if pixels:
        args = dense(x), W, whole_vectors(b), stride, *padding, out, *start, spacing, floor
        parallel(convolve_images, len(x), n_runs(len(x), _images_in_a_run(pixels, W)), *args)
    return out


def conv2d_weight_grad(x: Array, dy: Array, stride: int, padding: Pair, dW: Array, db: Array) -> None:
    """Write dL/dW and dL/db; see `reference.conv2d_weight_grad`."""
    if winograd.suits(dW, stride, dy):
        winograd.conv2d_weight_grad(x, dy, padding, dW, db)
        return
    dy, N, F = whole_vectors(dy), len(x), len(db)
    _, H_out, W_out, width = dy.shape
    fewest = max(-(-N // _MOST_PARTIALS), _FEWEST_PIXELS // (H_out * W_out))
    count = n_runs(N, max(_images_in_a_run(H_out * W_out, dW), fewest))
    partial_dW, row_sums = np.empty((count, *dW.shape[:3], width), x.dtype), np.empty((count, W_out * width), x.dtype)
    parallel(correlate_images, N, count, dense(x), dy, stride, *padding, partial_dW, row_sums)
    dW[...] = partial_dW.sum(axis=0)[..., :F]
    db[...] = row_sums.sum(axis=0).reshape(W_out, width).sum(axis=0)[:F]


def conv2d_input_grad(dy: Array, W: Array, stride: int, padding: Pair, out: Array) -> Array:
    """Write dL/dx; see `reference.conv2d_input_grad`.

    x[h] meets the taps i of the kernel for which h + above - i is a row of y times the stride: every
    stride-th tap. So pixels `stride` apart have a gradient of their own, and it is a convolution of dy with
    their taps, turned by 180° and with channels swapped. Nothing is scattered: each pixel is written once.
    """
    zeros = np.zeros(W.shape[2], dy.dtype)
    for top, left in np.ndindex(stride, stride):
        (down, i), (right, j) = divmod(top + padding[0], stride), divmod(left + padding[1], stride)
        taps = W[i::stride, j::stride][::-1, ::-1].transpose(0, 1, 3, 2)
        border = (len(taps) - 1 - down, taps.shape[1] - 1 - right) if taps.size else (0, 0)
        _convolve(dy, taps, zeros, 1, border, out, -math.inf, (top, left), stride)
    return out


def _images_in_a_run(pixels: int, W: Array) -> int:
    return max(1, _WORK // max(1, pixels * W.size))
