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
from minisam.kernels.threads import parallel, scratch
from minisam.kernels.tile import add_rows, strip, surrounded, whole_vectors

_WORK = 1 << 22  # multiply-adds that a thread takes at once: some 0.1 ms
_MOST_PARTIALS = 8  # partial weight gradients, added up in order
_FEWEST_PIXELS = 512  # of y, for each of them: then adding them up takes little time


@kernel("void(T[:,:,:,::1], T[:,:,:,::1], T[::1], i8, i8, i8, T[:,:,::1], T[:,:,:,::1], i8, i8, i8, T)")
def convolve_images(x, W, b, stride, above, before, padded, y, top, left, spacing, floor):
    """y[n, top + r·spacing, left + c·spacing, :] = max(b + the product of W with the window of x[n] at (r, c), floor).

    F must be whole vectors; `padded` is scratch memory for an image and as many zeros as its windows reach.
    """
    (kH, kW, C, F), (_, H, columns, _) = W.shape, y.shape
    weights, n = W.reshape(W.size), (columns - left + spacing - 1) // spacing  # pixels in a row
    padded[:] = 0
    for i in range(len(x)):
        image, to = surrounded(x[i], above, before, padded), y[i].reshape(H * columns * F)
        row, of_W = image.shape[1] * C, (kW * C * F, F)
        pixels, of_x = image.reshape(len(image) * row), (stride * C, row, 1)
        for r in range((H - top + spacing - 1) // spacing):
            at, place = r * stride * row, ((top + r * spacing) * columns + left) * F
            strip(n, F, pixels, at, of_x, weights, 0, of_W, b, 0, 0, to, place, spacing * F, kH, kW * C, floor)


@kernel("void(T[:,:,:,::1], T[:,:,:,::1], i8, i8, i8, T[:,:,::1], T[:,:,:,::1], T[::1])")
def correlate_images(x, dy, stride, above, before, padded, dW, row_sums):
    """dW[i, j, k, f] = Σₙᵣ꜀ x[n, r·stride + i - above, c·stride + j - before, k] dy[n, r, c, f]; F is whole vectors.

    row_sums[(c, f)] = Σₙᵣ dy[n, r, c, f]: what is left of db to add up.
    """
    (N, H, columns, F), (kH, kW, C, _) = dy.shape, dW.shape
    sums, n, no_floor = dW.reshape(dW.size), kW * C, x.dtype.type(-np.inf)
    padded[:], sums[:], row_sums[:] = 0, 0, 0
    for i in range(N):
        image, slopes = surrounded(x[i], above, before, padded), dy[i].reshape(H * columns * F)
        row, of_dy = image.shape[1] * C, (columns * F, F)
        pixels, of_x = image.reshape(len(image) * row), (1, stride * row, stride * C)
        for k in range(kH):
            to = k * n * F
            strip(n, F, pixels, k * row, of_x, slopes, 0, of_dy, sums, to, F, sums, to, F, H, columns, no_floor)
        add_rows(dy[i], row_sums)


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
    F, x, convolve, W, b = len(b), dense(x), convolve_images[x.dtype], whole_vectors(W), whole_vectors(b)
    pixels = (slice(None), *(slice(first, None, spacing) for first in start))
    _, H_out, W_out, _ = out[pixels].shape
    if not H_out * W_out:
        return out

    def images(first: int, last: int) -> None:
        to = out[first:last]
        missing = len(b) > F  # channels of whole vectors
        padded, wide = scratch(x.dtype, _reach(H_out, W_out, stride, W), (*to.shape[:3], len(b) * missing))
        convolve(x[first:last], W, b, stride, *padding, padded, wide if missing else to, *start, spacing, floor)
        if missing:
            to[pixels] = wide[pixels][..., :F]

    parallel(images, len(x), _images_in_a_block(H_out * W_out, W))
    return out


def conv2d_weight_grad(x: Array, dy: Array, stride: int, padding: Pair, dW: Array, db: Array) -> None:
    """Write dL/dW and dL/db; see `reference.conv2d_weight_grad`."""
    if winograd.suits(dW, stride, dy):
        winograd.conv2d_weight_grad(x, dy, padding, dW, db)
        return
    x, dy, correlate = dense(x), whole_vectors(dy), correlate_images[x.dtype]
    _, H_out, W_out, width = dy.shape

    def images(first: int, last: int) -> tuple[Array, Array]:
        (padded,) = scratch(x.dtype, _reach(H_out, W_out, stride, dW))
        sums = np.empty((*dW.shape[:3], width), x.dtype), np.empty(W_out * width, x.dtype)
        correlate(x[first:last], dy[first:last], stride, *padding, padded, *sums)
        return sums

    fewest = max(-(-len(x) // _MOST_PARTIALS), _FEWEST_PIXELS // (H_out * W_out))
    block = max(_images_in_a_block(H_out * W_out, dW), fewest)
    total, row_sums = (np.sum(partials, axis=0) for partials in zip(*parallel(images, len(x), block), strict=True))
    dW[...] = total[..., : len(db)]
    db[...] = row_sums.reshape(W_out, width).sum(axis=0)[: len(db)]


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


def _reach(H_out: int, W_out: int, stride: int, W: Array) -> tuple[int, int, int]:
    """The shape of an image with all that the windows of H_out × W_out pixels see."""
    kH, kW, C, _ = W.shape
    return (H_out - 1) * stride + kH, (W_out - 1) * stride + kW, C


def _images_in_a_block(pixels: int, W: Array) -> int:
    return max(1, _WORK // max(1, pixels * W.size))
