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

import numba
import numpy as np

from minisam.checks import Array
from minisam.kernels.compiled import dense, kernel
from minisam.kernels.reference import Pair
from minisam.kernels.threads import parallel, scratch
from minisam.kernels.tile import add_rows, lanes, strip, surrounded

_FEWEST_CHANNELS = 16  # with fewer, making tiles costs more than they save
_WORK = 1 << 17  # multiply-adds of one of the 36 products that a thread takes at once
_CHUNK_BYTES = 1 << 19  # of transformed tiles, which stay in the cache until they are multiplied
_MOST_PARTIALS = 8  # partial weight gradients, added up in order
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
def product(n, length, A, a, a_row, a_step, B, b, b_step, P, C, c, c_step, zeros):
    """C[m, :] = Σₚ A[m, p] B[p, :] for m < n, p < P, with `length` numbers in a row."""
    steps, no_floor = (a_row, 0, a_step), zeros.dtype.type(-np.inf)
    strip(n, length, A, a, steps, B, b, (0, b_step), zeros, 0, 0, C, c, c_step, 1, P, no_floor)


@kernel("void(T[:,::1], T[::1], T[::1], T[::1], T[::1])")
def both_sides(M, x, half, y, zeros):
    """y[i, j, :] = Σₚᵩ M[i, p] M[j, q] x[p, q, :]: M x Mᵀ for a matrix x whose entries are vectors."""
    rows, taps = M.shape
    length, M = len(x) // taps**2, M.reshape(rows * taps)
    for q in range(taps):
        at, step = q * length, taps * length
        product(rows, length, M, 0, taps, 1, x, at, step, taps, half, at, step, zeros)
    for i in range(rows):
        product(rows, length, M, 0, taps, 1, half, i * taps * length, length, taps, y, i * rows * length, length, zeros)


@numba.njit(nogil=True, error_model="numpy")
def to_points(image, r, M, combined, tiles, first, n_tiles, n_all, zeros):
    """tiles[6i + j, first + t, :] = Σₚᵩ M[i, p] M[j, q] image[4r + p, 4t + q, :] for t < n_tiles, of n_all tiles.

    M is (6, 6) or (6, 4), and `combined` is scratch memory for six combinations of rows of the image.
    """
    H, W, C = image.shape
    row, taps = W * C, M.shape[1]
    M, pixels = M.reshape(6 * taps), image.reshape(H * row)
    product(6, row, M, 0, taps, 1, pixels, 4 * r * row, row, taps, combined, 0, row, zeros)  # Σₚ M[i, p] (row 4r + p)
    for i in range(6):
        for t in range(n_tiles):  # Σᵩ M[j, q] (column 4t + q of that)
            to = (6 * i * n_all + first + t) * C
            product(6, C, M, 0, taps, 1, combined, i * row + 4 * t * C, C, taps, tiles, to, n_all * C, zeros)


@numba.njit(nogil=True, error_model="numpy")
def rows_to_points(x, start, stop, above, before, M, n_tiles, padded, combined, tiles, zeros):
    """The image tiles of rows start to stop - 1, counted through all images, at the points: see `to_points`."""
    tile_rows, image = padded.shape[0] // 4, padded
    for row in range(start, stop):
        i, r = divmod(row, tile_rows)
        if r == 0 or row == start:
            image = surrounded(x[i], above, before, padded)
        to_points(image, r, M, combined, tiles, (row - start) * n_tiles, n_tiles, (stop - start) * n_tiles, zeros)


@numba.njit(nogil=True, error_model="numpy")
def from_points(tiles, first, n_all, A_T, b, y, r, combined, floor, zeros):
    """y[4r + i, 4t + j, :] = max(b + Σₚᵩ A[p, i] A[q, j] tiles[6p + q, first + t, :], floor), for one image y."""
    H, W, F = y.shape
    row = (W + 3) // 4 * F
    A_T, pixels = A_T.reshape(24), y.reshape(H * W * F)
    for q in range(6):  # combined[i, q] = Σₚ A[p, i] tiles[6p + q]
        at = (q * n_all + first) * F
        product(4, row, A_T, 0, 6, 1, tiles, at, 6 * n_all * F, 6, combined, q * row, 6 * row, zeros)
    for i in range(min(4, H - 4 * r)):
        for t in range((W + 3) // 4):
            n, at, to = min(4, W - 4 * t), 6 * i * row + t * F, ((4 * r + i) * W + 4 * t) * F
            strip(n, F, A_T, 0, (6, 0, 1), combined, at, (0, row), b, 0, 0, pixels, to, F, 1, 6, floor)


@kernel(
    "void(T[:,:,:,::1], T[:,:,:,::1], T[::1], i8, i8, T[:,::1], T[:,::1], T[::1], i8,"
    " T[:,:,::1], T[::1], T[::1], T[::1], T[:,:,:,::1], T)"
)
def convolve_tiles(x, U, b, above, before, B_T, A_T, zeros, chunk, padded, combined, V, VU, y, floor):
    """y = max(b + the 3×3 convolution of x, floor), `chunk` rows of tiles at a time, in scratch memory."""
    (N, H, W, F), C = y.shape, x.shape[3]
    tile_rows, n_tiles = (H + 3) // 4, (W + 3) // 4
    U = U.reshape(U.size)
    padded[:] = 0
    for start in range(0, N * tile_rows, chunk):
        stop = min(start + chunk, N * tile_rows)
        n = (stop - start) * n_tiles
        rows_to_points(x, start, stop, above, before, B_T, n_tiles, padded, combined, V, zeros)
        for p in range(36):
            product(n, F, V, p * n * C, C, 1, U, p * C * F, F, C, VU, p * n * F, F, zeros)
        for row in range(start, stop):
            i, r = divmod(row, tile_rows)
            from_points(VU, (row - start) * n_tiles, n, A_T, b, y[i], r, combined, floor, zeros)


@kernel(
    "void(T[:,:,:,::1], T[:,:,:,::1], i8, i8, T[:,::1], T[:,::1], T[::1], i8,"
    " T[:,:,::1], T[:,:,::1], T[::1], T[::1], T[::1], T[::1], T[::1])"
)
def correlate_tiles(x, dy, above, before, B_T, A, zeros, chunk, padded, padded_dy, combined, V, D, dU, row_sums):
    """dU = Vᵀ D, added up over all tiles, and row_sums as in `conv.correlate_images`."""
    (N, H, W, F), C = dy.shape, x.shape[3]
    tile_rows, n_tiles = (H + 3) // 4, (W + 3) // 4
    no_floor = zeros.dtype.type(-np.inf)
    padded[:], padded_dy[:], dU[:], row_sums[:] = 0, 0, 0, 0
    for start in range(0, N * tile_rows, chunk):
        stop = min(start + chunk, N * tile_rows)
        n = (stop - start) * n_tiles
        rows_to_points(x, start, stop, above, before, B_T, n_tiles, padded, combined, V, zeros)
        rows_to_points(dy, start, stop, 0, 0, A, n_tiles, padded_dy, combined, D, zeros)
        for p in range(36):
            to = p * C * F
            strip(C, F, V, p * n * C, (1, 0, C), D, p * n * F, (0, F), dU, to, F, dU, to, F, 1, n, no_floor)
    for i in range(N):
        add_rows(dy[i], row_sums)


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
    x, b, convolve = dense(x), dense(b), convolve_tiles[x.dtype]
    (rows, columns, chunk), A_T, B_T, G = _tiling(out, W), *_matrices(x.dtype, _A.T)
    image, n = (4 * rows + 2, 4 * columns + 2, C), chunk * columns
    longest = max(image[1] * C, x.shape[2] * C, 4 * columns * F, C * F)
    zeros = np.zeros(longest, x.dtype)
    U = _both_sides(G, dense(W), (6, 6, C, F), zeros)  # G g Gᵀ

    def images(first: int, last: int) -> None:
        scratches = scratch(x.dtype, image, (6 * longest,), (36 * n * C,), (36 * n * F,))
        convolve(x[first:last], U, b, *padding, B_T, A_T, zeros, chunk, *scratches, out[first:last], floor)

    parallel(images, len(x), _images_in_a_block(rows * columns, W))
    return out


def conv2d_weight_grad(x: Array, dy: Array, padding: Pair, dW: Array, db: Array) -> None:
    """Write dL/dW and dL/db at stride 1; see `reference.conv2d_weight_grad`."""
    C, F = dW.shape[2:]
    x, dy, correlate = dense(x), dense(dy), correlate_tiles[x.dtype]
    (rows, columns, chunk), A, B_T, G = _tiling(dy, dW), *_matrices(x.dtype, _A)
    image, slopes, n = (4 * rows + 2, 4 * columns + 2, C), (4 * rows, 4 * columns, F), chunk * columns
    longest = max(image[1] * C, x.shape[2] * C, dy.shape[2] * F, slopes[1] * F, C * F)
    zeros = np.zeros(longest, x.dtype)

    def images(first: int, last: int) -> tuple[Array, Array]:
        sums = np.empty(36 * C * F, x.dtype), np.empty(dy.shape[2] * F, x.dtype)
        scratches = scratch(x.dtype, image, slopes, (6 * longest,), (36 * n * C,), (36 * n * F,))
        correlate(x[first:last], dy[first:last], *padding, B_T, A, zeros, chunk, *scratches, *sums)
        return sums

    fewest = max(-(-len(x) // _MOST_PARTIALS), _FEWEST_TILES // (rows * columns))
    block = max(_images_in_a_block(rows * columns, dW), fewest)
    dU, row_sums = (np.sum(partials, axis=0) for partials in zip(*parallel(images, len(x), block), strict=True))
    dW[...] = _both_sides(np.ascontiguousarray(G.T), dU, dW.shape, zeros)
    np.sum(row_sums.reshape(-1, F), axis=0, out=db)


def _both_sides(M: Array, x: Array, shape: tuple[int, ...], zeros: Array) -> Array:
    y = np.empty(shape, x.dtype)
    both_sides[x.dtype](M, x.reshape(-1), np.empty(y.size // len(M) * M.shape[1], x.dtype), y.reshape(-1), zeros)
    return y


def _matrices(dtype: np.dtype, A: Array) -> list[Array]:
    return [np.ascontiguousarray(matrix, dtype) for matrix in (A, _B_T, _G)]


def _tiling(y: Array, W: Array) -> tuple[int, int, int]:
    """Rows of tiles in an image, tiles in such a row, and how many rows are transformed at a time."""
    rows, columns = -(-y.shape[1] // 4), -(-y.shape[2] // 4)
    return rows, columns, max(1, _CHUNK_BYTES // (36 * columns * sum(W.shape[2:]) * W.itemsize))


def _images_in_a_block(tiles: int, W: Array) -> int:
    return max(1, _WORK // (tiles * W.shape[2] * W.shape[3]))
