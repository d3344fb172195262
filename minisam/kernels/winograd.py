"""3×3 convolution with a quarter of the multiplications (Winograd's F(4×4, 3×3); Lavin & Gray 2016).

A filter with three taps, slid along six numbers, gives some coefficients of a product of two
polynomials. That product can be computed by evaluating both factors at points, multiplying value by
value, and interpolating: four outputs take six products, not twelve. With matrices that depend on the
points alone,

    y = Aᵀ [(G g) ⊙ (Bᵀ d)]                      d (6,), g (3,), y (4,)
    y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A               in two dimensions: 36 products, not 144

With channels, each of the 36 is a matrix product over all tiles, (tiles, C) times (C, F). The
weight gradient is the same formula transposed: dg = Gᵀ [(Bᵀ d B)ᵀ (A dy Aᵀ)] G. `to_tiles` computes
M (·) Mᵀ for both factors: on overlapping 6×6 tiles d with M = Bᵀ, and on 4×4 blocks dy with M = A. For
these it reads 6×6 pixels as well, and M is A with two columns of zeros appended.

In the code: tile (r, t) of image n begins at pixel (4r, 4t) of y; i, j and p, q run over the six points
or pixels of a tile; C and F are the channels of x and y; U, V and D stand for G g Gᵀ, Bᵀ d B and A dy Aᵀ.
"""

import numpy as np

from minisam.checks import Array
from minisam.kernels.compiled import dense, kernel
from minisam.kernels.reference import Pair
from minisam.kernels.threads import parallel, runs, scratch

_TILE_BYTES = 1 << 20  # transformed tiles of one block: they and their products stay in the cache
_FEWEST_CHANNELS = 16  # with fewer, making tiles costs more than they save
_MOST_PARTIALS = 8  # partial weight gradients, added up in order

# The sixth point is ∞, where a polynomial's value is its highest coefficient. These finite ones keep
# float32 rounding about as small as that of plain sums.
_POINTS = np.array([0, 3 / 4, -3 / 4, 3 / 2, -3 / 2])
_GAPS = np.array([np.prod(p - _POINTS[p != _POINTS]) for p in _POINTS])

# Values of a polynomial of degree 3 and of degree 2 (scaled), then the coefficients that interpolate.
_A = np.vstack([np.vander(_POINTS, 4, increasing=True), np.eye(4)[3:]])
_G = np.vstack([np.vander(_POINTS, 3, increasing=True) / _GAPS[:, None], np.eye(3)[2:]])
_B_T = np.vstack([*(np.append(np.poly(_POINTS[p != _POINTS])[::-1], 0) for p in _POINTS), np.poly(_POINTS)[::-1]])


@kernel("void(T[:,:,:,::1], T[:,::1], i8, i8, T[:,::1], T[:,:,:,:,::1])")
def to_tiles(x, M, above, before, rows, tiles):
    """tiles[6i + j, n, r, t] = Σₚᵩ M[i,p] M[j,q] x[n, 4r - above + p, 4t - before + q], x = 0 outside.

    above and before are the zeros above and left of the image; rows (7, …) is scratch memory, for six
    rows of the image with their zeros and for one combination of them.
    """
    _, N, tile_rows, n_tiles, C = tiles.shape
    x0, x1, x2, x3, x4, x5, row = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6]
    pixels = row.reshape(len(row) // C, C)
    first, last = max(before, 0) * C, max(min(before + x.shape[2], len(row) // C), max(before, 0)) * C
    for n, r in np.ndindex(N, tile_rows):
        rows[:6] = 0
        for p in range(max(above - 4 * r, 0), min(x.shape[1] + above - 4 * r, 6)):
            source, to = x[n, 4 * r - above + p].reshape(x.shape[2] * C)[first - before * C :], rows[p, first:last]
            for k in range(len(to)):
                to[k] = source[k]
        for i in range(6):
            m0, m1, m2, m3, m4, m5 = M[i]
            for k in range(len(row)):
                row[k] = m0 * x0[k] + m1 * x1[k] + m2 * x2[k] + m3 * x3[k] + m4 * x4[k] + m5 * x5[k]
            for j in range(6):
                m0, m1, m2, m3, m4, m5 = M[j]
                out = tiles[6 * i + j, n, r]
                for t in range(n_tiles):
                    for k in range(C):
                        out[t, k] = (
                            m0 * pixels[4 * t, k] + m1 * pixels[4 * t + 1, k] + m2 * pixels[4 * t + 2, k]
                            + m3 * pixels[4 * t + 3, k] + m4 * pixels[4 * t + 4, k] + m5 * pixels[4 * t + 5, k]
                        )  # fmt: skip


@kernel("void(T[:,:,:,::1], T[:,::1], T[::1], T[:,:,::1], T[:,:,:,::1])")
def from_tiles(products, A, b, sums, y):
    """y[n, 4r + i, 4t + j, f] = b[f] + Σₚᵩ A[p,i] A[q,j] products[6p + q, n, r, t·F + f]."""
    N, H, W, F = y.shape
    for n, r in np.ndindex(N, products.shape[2]):
        for j in range(6):
            x0, x1, x2 = products[j, n, r], products[6 + j, n, r], products[12 + j, n, r]
            x3, x4, x5 = products[18 + j, n, r], products[24 + j, n, r], products[30 + j, n, r]
            for i in range(4):
                m0, m1, m2, m3, m4, m5 = A[:, i]
                out = sums[i, j]
                for k in range(len(out)):
                    out[k] = m0 * x0[k] + m1 * x1[k] + m2 * x2[k] + m3 * x3[k] + m4 * x4[k] + m5 * x5[k]
        for i in range(min(4, H - 4 * r)):
            s = sums[i].reshape(6, sums.shape[2] // F, F)
            s0, s1, s2, s3, s4, s5 = s[0], s[1], s[2], s[3], s[4], s[5]
            to = y[n, 4 * r + i]
            for j in range(min(4, W)):
                m0, m1, m2, m3, m4, m5 = A[:, j]
                for t in range((W - j + 3) // 4):
                    pixel = to[4 * t + j]
                    for f in range(F):
                        pixel[f] = (
                            b[f] + m0 * s0[t, f] + m1 * s1[t, f] + m2 * s2[t, f]
                            + m3 * s3[t, f] + m4 * s4[t, f] + m5 * s5[t, f]
                        )  # fmt: skip


def suits(W: Array, stride: int) -> bool:
    """Whether tiles pay for a convolution like this."""
    return stride == 1 and W.shape[:2] == (3, 3) and min(W.shape[2:]) >= _FEWEST_CHANNELS


def _tiling(y: Array, W: Array) -> tuple[int, int, int]:
    """Rows of tiles in an image, tiles in such a row, and images in a block."""
    rows, columns = -(-y.shape[1] // 4), -(-y.shape[2] // 4)
    return rows, columns, max(1, _TILE_BYTES // (36 * rows * columns * max(W.shape[2:]) * W.itemsize))


def conv2d(x: Array, W: Array, b: Array, padding: Pair, out: Array) -> Array:
    """Write the 3×3 convolution at stride 1 into out; see `reference.conv2d`."""
    C, F = W.shape[2:]
    A, B_T, G = (matrix.astype(x.dtype) for matrix in (_A, _B_T, _G))
    U = (G @ (G @ W.reshape(3, 3 * C * F)).reshape(6, 3, C * F)).reshape(36, C, F)  # G g Gᵀ
    x, b, tiles_of, out_of = dense(x), dense(b), to_tiles[x.dtype], from_tiles[x.dtype]
    rows, columns, block = _tiling(out, W)

    def images(first: int, last: int) -> None:
        shape, width = (36, last - first, rows, columns), (4 * columns + 2) * C
        V, products, row, sums = scratch(x.dtype, (*shape, C), (*shape, F), (7, width), (4, 6, columns * F))
        tiles_of(x[first:last], B_T, *padding, row, V)
        np.matmul(V.reshape(36, -1, C), U, out=products.reshape(36, -1, F))
        out_of(products.reshape(*shape[:3], -1), A, b, sums, out[first:last])

    parallel(images, len(x), block)
    return out


def conv2d_weight_grad(x: Array, dy: Array, padding: Pair, dW: Array, db: Array) -> None:
    """Write dL/dW and dL/db at stride 1; see `reference.conv2d_weight_grad`."""
    C, F = dW.shape[2:]
    A, B_T, G = (matrix.astype(x.dtype) for matrix in (np.pad(_A, ((0, 0), (0, 2))), _B_T, _G))  # A (6, 4) as (6, 6)
    x, dy, tiles_of = dense(x), dense(dy), to_tiles[x.dtype]
    rows, columns, block = _tiling(dy, dW)

    def images(first: int, last: int) -> tuple[Array, Array]:
        dU = np.zeros((36, C, F), x.dtype)
        for i, j in runs(last - first, block):
            part, w = slice(first + i, first + j), 4 * columns + 2
            shape = (36, len(x[part]), rows, columns)
            V, D, VD, *row = scratch(x.dtype, (*shape, C), (*shape, F), (36, C, F), (7, w * C), (7, w * F))
            tiles_of(x[part], B_T, *padding, row[0], V)
            tiles_of(dy[part], A, 0, 0, row[1], D)
            V_T = V.reshape(36, -1, C).transpose(0, 2, 1)
            dU += np.matmul(V_T, D.reshape(36, -1, F), out=VD)
        return dU, dy[first:last].reshape(-1, dy.shape[2] * F).sum(axis=0)

    partial_dU, rows_of_db = zip(*parallel(images, len(x), max(block, -(-len(x) // _MOST_PARTIALS))), strict=True)
    dU_sum = np.sum(partial_dU, axis=0).reshape(6, 6, C * F)
    dW[...] = (G.T @ (G.T @ dU_sum).reshape(6, 3 * C * F)).reshape(dW.shape)
    np.sum(np.reshape(rows_of_db, (-1, F)), axis=0, out=db)
