"""3×3 convolution with a quarter of the multiplications (Winograd's F(4×4, 3×3); Lavin & Gray 2016).

A filter with three taps, slid along six numbers, gives some coefficients of a product of two
polynomials. That product can be computed by evaluating both factors at points, multiplying value by
value, and interpolating: four outputs take six products, not twelve. With matrices that depend on the
points alone,

    y = Aᵀ [(G g) ⊙ (Bᵀ d)]                      d (6,), g (3,), y (4,)
    y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A               in two dimensions: 36 products, not 144

With channels, each of the 36 is a matrix product over all tiles, (tiles, C) times (C, F). The
weight gradient is the same formula transposed: dg = Gᵀ [(Bᵀ d B)ᵀ (A dy Aᵀ)] G. All of these sums, the
maps by A and B too, are strips of register tiles (see `tile`), for a few rows of image tiles at a time.

Rounding is a little coarser than that of plain sums (a test holds it to 2·10⁻⁶ of the largest output in
float32), and what is exactly 0 there may be 1e-8 here. Where that would be a weight's whole gradient, because the
weight meets nothing but zeros around an image of less than four rows or columns, `conv` does not come here; nor
anywhere after `set_winograd(False)`.

In the code: tile (r, t) of image n begins at pixel (4r, 4t) of y; i, j and p, q run over the six points
or pixels of a tile; C and F are the channels of x and y; U, V and D stand for G g Gᵀ, Bᵀ d B and A dy Aᵀ.
"""

import math
from functools import cache

import numba
import numpy as np

from minisam.checks import Array
from minisam.kernels.compiled import dense, kernel
from minisam.kernels.reference import Pair
from minisam.kernels.threads import n_runs, parallel
from minisam.kernels.tile import add_rows, lanes, strip, surrounded

_FEWEST_CHANNELS = 16  # with fewer, making tiles costs more than they save
_WORK = 1 << 17  # multiply-adds of one of the 36 products that a thread takes at once
_CHUNK_BYTES = 1 << 19  # of transformed tiles, which stay in the cache until they are multiplied
_MOST_PARTIALS = 8  # partial weight gradients, added up in order
_COLUMNS = 1024  # of G g Gᵀ that a thread makes at once
_FEWEST_TILES = 128  # for each of them: then adding them up takes little time

# The sixth point is ∞, where a polynomial's value is its highest coefficient. These finite ones keep
# float32 rounding about as small as that of plain sums.
_POINTS = np.array([0, 3 / 4, -3 / 4, 3 / 2, -3 / 2])
_GAPS = np.array([np.prod(p - _POINTS[p != _POINTS]) for p in _POINTS])

# Values of a polynomial of degree 3 and of degree 2 (scaled), then the coefficients that interpolate.
_A = np.vstack([np.vander(_POINTS, 4, increasing=True), np.eye(4)[3:]])
_G = np.vstack([np.vander(_POINTS, 3, increasing=True) / _GAPS[:, None], np.eye(3)[2:]])
_B_T = np.vstack([*(np.append(np.poly(_POINTS[p != _POINTS])[::-1], 0) for p in _POINTS), np.poly(_POINTS)[::-1]])


@numba.njit(nogil=True, error_model="numpy")
def product(n, length, A, a, a_row, a_step, B, b, b_step, P, C, c, c_step):
    """C[m, :] = Σₚ A[m, p] B[p, :] for m < n, p < P, with `length` numbers in a row."""
    steps, no_floor = (a_row, 0, a_step), A.dtype.type(-np.inf)
    strip(n, length, A, a, steps, B, b, (0, b_step), None, 0, 0, C, c, c_step, 1, P, no_floor)


@kernel("void(T[:,::1], T[:,:,::1], T[:,::1], i8)")
def both_sides(run, start, stop, M, x, y, unit):
    """y[ij, :] = Σₚᵩ M[i, p] M[j, q] Σₙ x[n, pq, :], for a part of `:`: M x Mᵀ for a matrix x of vectors."""
    (rows, taps), first, length = M.shape, start * unit, (stop - start) * unit
    M, step = M.reshape(rows * taps), taps * length
    total, half, to = np.zeros(taps * step, x.dtype), np.empty(rows * step, x.dtype), y.reshape(y.size)
    for partial in x:
        for p in range(taps**2):
            part, sums = partial[p, first : first + length], total[p * length : (p + 1) * length]
            for k in range(length):
                sums[k] += part[k]
    for q in range(taps):
        product(rows, length, M, 0, taps, 1, total, q * length, step, taps, half, q * length, step)
    for i in range(rows):
        place = i * rows * y.shape[1] + first
        product(rows, length, M, 0, taps, 1, half, i * step, length, taps, to, place, y.shape[1])


@numba.njit(nogil=True, error_model="numpy")
def to_points(image, r, M, combined, tiles, first, n_tiles, n_all):
    """tiles[6i + j, first + t, :] = Σₚᵩ M[i, p] M[j, q] image[4r + p, 4t + q, :] for t < n_tiles, of n_all tiles.

    M is (6, 6) or (6, 4), and `combined` is scratch memory for six combinations of rows of the image.
    """
    H, W, C = image.shape
    row, taps = W * C, M.shape[1]
    M, pixels = M.reshape(6 * taps), image.reshape(H * row)
    product(6, row, M, 0, taps, 1, pixels, 4 * r * row, row, taps, combined, 0, row)  # Σₚ M[i, p] (row 4r + p)
    for i in range(6):
        for t in range(n_tiles):  # Σᵩ M[j, q] (column 4t + q of that)
            to = (6 * i * n_all + first + t) * C
            product(6, C, M, 0, taps, 1, combined, i * row + 4 * t * C, C, taps, tiles, to, n_all * C)


@numba.njit(nogil=True, error_model="numpy")
def rows_to_points(x, start, stop, above, before, M, n_tiles, padded, combined, tiles):
    """The image tiles of rows start to stop - 1, counted through all images, at the points: see `to_points`."""
    tile_rows, image = padded.shape[0] // 4, padded
    for row in range(start, stop):
        i, r = divmod(row, tile_rows)
        if r == 0 or row == start:
            image = surrounded(x[i], above, before, padded)
        to_points(image, r, M, combined, tiles, (row - start) * n_tiles, n_tiles, (stop - start) * n_tiles)


@numba.njit(nogil=True, error_model="numpy")
def from_points(tiles, first, n_all, A_T, b, y, r, combined, floor):
    """y[4r + i, 4t + j, :] = max(b + Σₚᵩ A[p, i] A[q, j] tiles[6p + q, first + t, :], floor), for one image y."""
    H, W, F = y.shape
    row = (W + 3) // 4 * F
    A_T, pixels = A_T.reshape(24), y.reshape(H * W * F)
    for q in range(6):  # combined[i, q] = Σₚ A[p, i] tiles[6p + q]
        at = (q * n_all + first) * F
        product(4, row, A_T, 0, 6, 1, tiles, at, 6 * n_all * F, 6, combined, q * row, 6 * row)
    for i in range(min(4, H - 4 * r)):
        for t in range((W + 3) // 4):
            n, at, to = min(4, W - 4 * t), 6 * i * row + t * F, ((4 * r + i) * W + 4 * t) * F
            strip(n, F, A_T, 0, (6, 0, 1), combined, at, (0, row), b, 0, 0, pixels, to, F, 1, 6, floor)


@numba.njit(nogil=True, error_model="numpy")
def tiling(y, C):
    """Rows of tiles in an image, tiles in such a row, and how many rows are transformed at a time."""
    rows, columns = (y.shape[1] + 3) // 4, (y.shape[2] + 3) // 4
    return rows, columns, max(1, _CHUNK_BYTES // (36 * columns * (C + y.shape[3]) * y.itemsize))


@kernel("void(T[:,:,:,::1], T[:,::1], T[::1], i8, i8, T[:,::1], T[:,::1], T[:,:,:,::1], T)")
def convolve_tiles(run, start, stop, x, U, b, above, before, B_T, A_T, y, floor):
    """y = max(b + the 3×3 convolution of x, floor), a few rows of tiles at a time."""
    C, F = x.shape[3], y.shape[3]
    tile_rows, n_tiles, chunk = tiling(y, C)
    row, n = max((4 * n_tiles + 2) * C, x.shape[2] * C, 4 * n_tiles * F), chunk * n_tiles
    padded, combined = np.zeros((4 * tile_rows + 2, 4 * n_tiles + 2, C), x.dtype), np.empty(6 * row, x.dtype)
    V, VU, U = np.empty(36 * n * C, x.dtype), np.empty(36 * n * F, x.dtype), U.reshape(U.size)
    for first in range(start * tile_rows, stop * tile_rows, chunk):
        last = min(first + chunk, stop * tile_rows)
        n = (last - first) * n_tiles
        rows_to_points(x, first, last, above, before, B_T, n_tiles, padded, combined, V)
        for p in range(36):
            product(n, F, V, p * n * C, C, 1, U, p * C * F, F, C, VU, p * n * F, F)
        for tile_row in range(first, last):
            i, r = divmod(tile_row, tile_rows)
            from_points(VU, (tile_row - first) * n_tiles, n, A_T, b, y[i], r, combined, floor)


@kernel("void(T[:,:,:,::1], T[:,:,:,::1], i8, i8, T[:,::1], T[:,::1], T[:,:,::1], T[:,::1])")
def correlate_tiles(run, start, stop, x, dy, above, before, B_T, A, dU, row_sums):
    """dU[run] = Vᵀ D, added up over all tiles, and row_sums as in `conv.correlate_images`."""
    C, F = x.shape[3], dy.shape[3]
    tile_rows, n_tiles, chunk = tiling(dy, C)
    row, n = max((4 * n_tiles + 2) * C, x.shape[2] * C, 4 * n_tiles * F, dy.shape[2] * F), chunk * n_tiles
    padded, combined = np.zeros((4 * tile_rows + 2, 4 * n_tiles + 2, C), x.dtype), np.empty(6 * row, x.dtype)
    padded_dy, no_floor = np.zeros((4 * tile_rows, 4 * n_tiles, F), x.dtype), x.dtype.type(-np.inf)
    V, D = np.empty(36 * n * C, x.dtype), np.empty(36 * n * F, x.dtype)
    sums = dU[run].reshape(36 * C * F)
    sums[:], row_sums[run] = 0, 0
    for first in range(start * tile_rows, stop * tile_rows, chunk):
        last = min(first + chunk, stop * tile_rows)
        n = (last - first) * n_tiles
        rows_to_points(x, first, last, above, before, B_T, n_tiles, padded, combined, V)
        rows_to_points(dy, first, last, 0, 0, A, n_tiles, padded_dy, combined, D)
        for p in range(36):
            to = p * C * F
            strip(C, F, V, p * n * C, (1, 0, C), D, p * n * F, (0, F), sums, to, F, sums, to, F, 1, n, no_floor)
    for i in range(start, stop):
        add_rows(dy[i], row_sums[run])


_allowed = True


def set_winograd(allowed: bool) -> None:
    """Allow this algorithm where it is faster (the default), or let plain sums compute every convolution.

    The two differ by rounding, so their trainings differ in the last bits.

    >>> set_winograd(False); set_winograd(True)
    """
    global _allowed
    _allowed = allowed


def suits(W: Array, stride: int, y: Array) -> bool:
    """Whether tiles are allowed and pay for the convolution with W that gives y."""
    C, F = W.shape[2:]
    whole_vectors = C % lanes(W.dtype) == F % lanes(W.dtype) == 0
    large = min(C, F) >= _FEWEST_CHANNELS and min(y.shape[1:3]) >= 4
    return _allowed and stride == 1 and W.shape[:2] == (3, 3) and whole_vectors and large


def conv2d(x: Array, W: Array, b: Array, padding: Pair, out: Array, floor: float = -math.inf) -> Array:
    """Write the 3×3 convolution at stride 1 into out; see `reference.conv2d`."""
    C, F = W.shape[2:]
    _, A_T, B_T, G, _ = _matrices(x.dtype)
    U = _both_sides(G, W.reshape(1, 9, C * F))  # G g Gᵀ
    args = dense(x), U, dense(b), *padding, B_T, A_T, out, floor
    parallel(convolve_tiles, len(x), n_runs(len(x), _images_in_a_run(out, W)), *args)
    return out


def conv2d_weight_grad(x: Array, dy: Array, padding: Pair, dW: Array, db: Array) -> None:
    """Write dL/dW and dL/db at stride 1; see `reference.conv2d_weight_grad`."""
    C, F = dW.shape[2:]
    A, _, B_T, _, G_T = _matrices(x.dtype)
    fewest = max(-(-len(x) // _MOST_PARTIALS), _FEWEST_TILES // _tiles(dy))
    count = n_runs(len(x), max(_images_in_a_run(dy, dW), fewest))
    dU, row_sums = np.empty((count, 36, C * F), x.dtype), np.empty((count, dy.shape[2] * F), x.dtype)
    parallel(correlate_tiles, len(x), count, dense(x), dense(dy), *padding, B_T, A, dU, row_sums)
    dW[...] = _both_sides(G_T, dU).reshape(dW.shape)
    np.sum(row_sums.sum(axis=0).reshape(-1, F), axis=0, out=db)


def _both_sides(M: Array, x: Array) -> Array:
    unit = lanes(x.dtype) ** 2  # divides C·F
    n, y = x.shape[2] // unit, np.empty((len(M) ** 2, x.shape[2]), x.dtype)
    parallel(both_sides, n, n_runs(n, -(-_COLUMNS // unit)), M, dense(x), y, unit)
    return y


@cache
def _matrices(dtype: np.dtype) -> list[Array]:
    return [np.ascontiguousarray(matrix, dtype) for matrix in (_A, _A.T, _B_T, _G, _G.T)]


def _tiles(y: Array) -> int:
    """The number of tiles in an image."""
    return -(-y.shape[1] // 4) * -(-y.shape[2] // 4)


def _images_in_a_run(y: Array, W: Array) -> int:
    return max(1, _WORK // (_tiles(y) * W.shape[2] * W.shape[3]))
