"""3×3 convolution with a quarter of the multiplications (Winograd's F(4×4, 3×3); Lavin & Gray 2016).

A filter with three taps, slid along six numbers, is a part of a product of polynomials. A product
can be had by evaluating both factors at points, multiplying value by value, and interpolating:
four outputs take six products, not twelve. With matrices that depend on the points alone,

    y = Aᵀ [(G g) ⊙ (Bᵀ d)]                      d (6,), g (3,), y (4,)
    y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A               in two dimensions: 36 products, not 144

With channels, each of the 36 is a matrix product over all tiles, (tiles, C) times (C, F). The
gradient is the transpose: dg = Gᵀ [(Bᵀ d B)ᵀ (A dy Aᵀ)] G.
"""

import numpy as np
from numpy import ndarray as Array

from minisam.kernels.compiled import dense, kernel
from minisam.kernels.threads import parallel_for, scratch

Pair = tuple[int, int]

_TILE_BYTES = 3 << 18  # transformed tiles of one block: they and their products stay in the cache
_FEWEST_CHANNELS = 16
_MOST_PARTIALS = 8  # partial weight gradients, added up in order, …
_FEWEST_TILES = 64  # … each of so many tiles or more

# Finite points, the sixth is ∞. These keep float32 rounding about as small as that of plain sums.
_POINTS = np.array([0, 3 / 4, -3 / 4, 3 / 2, -3 / 2])
_GAPS = np.array([np.prod(p - _POINTS[p != _POINTS]) for p in _POINTS])
_AT_INFINITY = np.eye(6)[5]  # picks the highest power

# Values of a polynomial of degree 3 and of degree 2 (scaled), then the coefficients that interpolate.
_A = np.vstack([np.vander(_POINTS, 4, increasing=True), _AT_INFINITY[2:]])
_G = np.vstack([np.vander(_POINTS, 3, increasing=True) / _GAPS[:, None], _AT_INFINITY[3:]])
_B_T = np.vstack(
    [*(np.append(np.poly(_POINTS[p != _POINTS])[::-1], 0) for p in _POINTS), np.poly(_POINTS)[::-1]]
)


@kernel("void(T[:,:,:,::1], T[:,::1], i8, i8, i8, i8, T[:,::1], T[:,:,:,::1])")
def to_tiles(x, M, above, before, tile_rows, first, row, tiles):
    """tiles[6i + j, p, t] = Σₐᵦ M[i,a] M[j,b] x[·, 4r - above + a, 4t - before + b].

    Row p of tiles is row r of some image: all rows are counted through the batch, from `first`.
    """
    _, H, W, C = x.shape
    start = max(-before, 0)
    stop = max(min(len(row) - before, W), start)
    outside = np.zeros((stop - start) * C, x.dtype)
    row[:] = 0  # its border stays so
    inside = row[before + start : before + stop].reshape(len(outside))
    for p in range(tiles.shape[1]):
        n, r = divmod(first + p, tile_rows)
        top = 4 * r - above
        x0 = x[n, top, start:stop].reshape(len(outside)) if 0 <= top < H else outside
        x1 = x[n, top + 1, start:stop].reshape(len(outside)) if 0 <= top + 1 < H else outside
        x2 = x[n, top + 2, start:stop].reshape(len(outside)) if 0 <= top + 2 < H else outside
        x3 = x[n, top + 3, start:stop].reshape(len(outside)) if 0 <= top + 3 < H else outside
        x4 = x[n, top + 4, start:stop].reshape(len(outside)) if 0 <= top + 4 < H else outside
        x5 = x[n, top + 5, start:stop].reshape(len(outside)) if 0 <= top + 5 < H else outside
        for i in range(6):
            m0, m1, m2, m3, m4, m5 = M[i]
            for k in range(len(inside)):
                inside[k] = m0 * x0[k] + m1 * x1[k] + m2 * x2[k] + m3 * x3[k] + m4 * x4[k] + m5 * x5[k]
            for j in range(6):
                m0, m1, m2, m3, m4, m5 = M[j]
                out = tiles[6 * i + j, p]
                for t in range(len(out)):
                    for k in range(C):
                        out[t, k] = (
                            m0 * row[4 * t, k] + m1 * row[4 * t + 1, k] + m2 * row[4 * t + 2, k]
                            + m3 * row[4 * t + 3, k] + m4 * row[4 * t + 4, k] + m5 * row[4 * t + 5, k]
                        )  # fmt: skip


@kernel("void(T[:,:,::1], T[:,::1], T[::1], i8, i8, T[:,:,::1], T[:,:,:,::1])")
def from_tiles(products, A, b, tile_rows, first, sums, y):
    """The 4×4 tiles y = Aᵀ products A + b, for as many rows of tiles as `to_tiles` made."""
    _, H, W, F = y.shape
    n_tiles = sums.shape[2] // F
    for p in range(products.shape[1]):
        n, r = divmod(first + p, tile_rows)
        for j in range(6):
            x0, x1, x2 = products[j, p], products[6 + j, p], products[12 + j, p]
            x3, x4, x5 = products[18 + j, p], products[24 + j, p], products[30 + j, p]
            for i in range(4):
                m0, m1, m2, m3, m4, m5 = A[:, i]
                out = sums[i, j]
                for k in range(len(out)):
                    out[k] = m0 * x0[k] + m1 * x1[k] + m2 * x2[k] + m3 * x3[k] + m4 * x4[k] + m5 * x5[k]
        for i in range(min(4, H - 4 * r)):
            s = sums[i].reshape(6, n_tiles, F)
            s0, s1, s2, s3, s4, s5 = s[0], s[1], s[2], s[3], s[4], s[5]
            to = y[n, 4 * r + i]
            for column in range(min(4, W)):
                m0, m1, m2, m3, m4, m5 = A[:, column]
                for t in range((W - column + 3) // 4):
                    pixel = to[4 * t + column]
                    for f in range(F):
                        pixel[f] = (
                            b[f] + m0 * s0[t, f] + m1 * s1[t, f] + m2 * s2[t, f]
                            + m3 * s3[t, f] + m4 * s4[t, f] + m5 * s5[t, f]
                        )  # fmt: skip


def suits(W: Array, stride: int) -> bool:
    """Whether tiles pay: with few channels their making costs more than it saves."""
    return stride == 1 and W.shape[:2] == (3, 3) and min(W.shape[2:]) >= _FEWEST_CHANNELS


def _tiling(y: Array, channels: int) -> tuple[int, int, int]:
    """Rows of tiles in an image, tiles in such a row, and rows of tiles in a block."""
    tile_rows, n_tiles = -(-y.shape[1] // 4), -(-y.shape[2] // 4)
    return tile_rows, n_tiles, max(1, _TILE_BYTES // (36 * n_tiles * channels * y.itemsize))


def conv2d(x: Array, W: Array, b: Array, padding: Pair, out: Array) -> Array:
    """Write the 3×3 convolution at stride 1 into out; see `reference.conv2d`."""
    C, F = W.shape[2:]
    x, b = dense(x), dense(b)
    A, B_T, G = (matrix.astype(x.dtype) for matrix in (_A, _B_T, _G))
    U = (G @ (G @ W.reshape(3, 3 * C * F)).reshape(6, 3, C * F)).reshape(36, C, F)  # G g Gᵀ
    tiles_of, out_of = to_tiles[x.dtype], from_tiles[x.dtype]
    tile_rows, n_tiles, block = _tiling(out, max(C, F))

    def rows(first: int, last: int) -> None:
        n = last - first
        V, products, row, sums = scratch(
            x.dtype, (36, n, n_tiles, C), (36, n, n_tiles, F), (4 * n_tiles + 2, C), (4, 6, n_tiles * F)
        )
        tiles_of(x, B_T, *padding, tile_rows, first, row, V)
        np.matmul(V.reshape(36, -1, C), U, out=products.reshape(36, -1, F))
        out_of(products.reshape(36, n, -1), A, b, tile_rows, first, sums, out)

    parallel_for(rows, len(out) * tile_rows, block)
    return out


def conv2d_weight_grad(x: Array, dy: Array, padding: Pair, dW: Array, db: Array) -> None:
    """Write dL/dW and dL/db at stride 1; see `reference.conv2d_weight_grad`."""
    C, F = dW.shape[2:]
    x, dy = dense(x), dense(dy)
    A, B_T, G = (matrix.astype(x.dtype) for matrix in (np.pad(_A, ((0, 0), (0, 2))), _B_T, _G))
    tiles_of = to_tiles[x.dtype]
    tile_rows, n_tiles, block = _tiling(dy, max(C, F))
    images = max(-(-len(x) // _MOST_PARTIALS), -(-_FEWEST_TILES // (tile_rows * n_tiles)))  # a partial
    dU = np.zeros((-(-len(x) // images), 36, C, F), x.dtype)
    row_sums = np.empty((len(dU), dy.shape[2] * F), x.dtype)

    def partial(first: int, last: int) -> None:
        i, end = first // images, last * tile_rows
        for start in range(first * tile_rows, end, block):
            n = min(start + block, end) - start
            V, D, product, x_row, dy_row = scratch(
                x.dtype,
                *((36, n, n_tiles, C), (36, n, n_tiles, F), (36, C, F)),
                *((4 * n_tiles + 2, C), (4 * n_tiles + 2, F)),
            )
            tiles_of(x, B_T, *padding, tile_rows, start, x_row, V)
            tiles_of(dy, A, 0, 0, tile_rows, start, dy_row, D)
            V_T = V.reshape(36, -1, C).transpose(0, 2, 1)
            dU[i] += np.matmul(V_T, D.reshape(36, -1, F), out=product)
        np.sum(dy[first:last].reshape(-1, row_sums.shape[1]), axis=0, out=row_sums[i])

    parallel_for(partial, len(x), images)
    dU_sum = dU.sum(axis=0).reshape(6, 6, C * F)
    dW[...] = (G.T @ (G.T @ dU_sum).reshape(6, 3 * C * F)).reshape(dW.shape)
    np.sum(row_sums.reshape(-1, F), axis=0, out=db)
