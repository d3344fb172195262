"""Sums and affine maps channel by channel, for BatchNorm (twins in `reference`).

Arrays (N, …, C) are seen as rows of C channels. Each is read once: NumPy would make a pass, and a
temporary, of every operation.
"""

import numpy as np

from minisam.checks import Array
from minisam.kernels import reference
from minisam.kernels.compiled import dense, kernel
from minisam.kernels.threads import parallel

_BLOCK = 1 << 16  # numbers that a thread takes at once


@kernel("void(T[:,::1], f8[::1], T[:,::1], f8[:,::1])")
def channel_sums_rows(x, shift, y, sums):
    sums[:] = 0
    for i in range(len(x)):
        for c in range(len(shift)):
            v = np.float64(y[i, c])
            sums[0, c] += v
            sums[1, c] += (x[i, c] - shift[c]) * v


@kernel("void(T[:,::1], T[::1], T[:,::1], T[::1], T[::1], T[:,::1])")
def channel_affine_rows(x, a, y, b, c, out):
    for i in range(len(x)):
        for k in range(len(a)):
            out[i, k] = a[k] * x[i, k] + b[k] * y[i, k] + c[k]


def _rows(*arrays: Array) -> list[Array]:
    rows = [dense(x).reshape(-1, x.shape[-1]) for x in arrays]
    if len({x.shape for x in rows}) > 1:  # compiled loops do not check their bounds
        raise ValueError(f"expected arrays of one shape, got {[x.shape for x in arrays]}")
    return rows


def channel_sums(x: Array, shift: Array, y: Array) -> Array:
    """Σ y and Σ (x - shift) y per channel, in float64; see `reference.channel_sums`."""
    (x, y), add = _rows(x, y), channel_sums_rows[x.dtype]
    shift = np.full(x.shape[1], shift, np.float64)

    def part(i: int, j: int) -> Array:
        sums = np.empty((2, len(shift)))
        add(x[i:j], shift, y[i:j], sums)
        return sums

    return np.sum(parallel(part, len(x), max(1, _BLOCK // len(shift))), axis=0)


def channel_affine(x: Array, a: Array | float, y: Array, b: Array | float, c: Array | float, out: Array) -> Array:
    """out = a x + b y + c, with a, b and c per channel; see `reference.channel_affine`."""
    coefficients, range_ = np.array([np.full(x.shape[-1], v, np.float64) for v in (a, b, c)]), np.finfo(x.dtype)
    sizes = np.abs(coefficients)
    if np.any(((sizes > 0) & (sizes < range_.tiny)) | (sizes > range_.max)):  # rare: activations of 1e18 in float32
        return reference.channel_affine(x, coefficients[0], y, coefficients[1], coefficients[2], out)
    (x, y, to), affine, (a, b, c) = _rows(x, y, out), channel_affine_rows[x.dtype], coefficients.astype(x.dtype)
    parallel(lambda i, j: affine(x[i:j], a, y[i:j], b, c, to[i:j]), len(x), max(1, _BLOCK // x.shape[1]))
    return out
