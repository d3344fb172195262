"""Sums and affine maps channel by channel, for BatchNorm (twins in `reference`).

Arrays (N, …, C) are seen as pixels of C channels, and each is read once: NumPy would make a pass, and a
temporary, of every operation. A loop over a few channels is too short to be fast, so many pixels make
one long row, and what belongs to a channel is repeated along it.
"""

import math

import numpy as np

from minisam.checks import Array
from minisam.kernels import reference
from minisam.kernels.compiled import dense, kernel
from minisam.kernels.threads import parallel

_ROW = 1 << 9  # numbers in a long row: a few such rows fit into the nearest cache
_BLOCK = 1 << 17  # numbers that a thread takes at once


@kernel("void(T[::1], T[::1], T[::1], T[::1], T[:,::1])")
def channel_sums_block(x, x_shift, y, y_shift, sums):
    sums[:] = 0
    total, products = sums[0], sums[1]  # a sum for each place in the row: none gets many terms
    for start in range(0, len(x), len(x_shift)):
        u, v = x[start : start + len(x_shift)], y[start : start + len(x_shift)]
        for i in range(len(u)):
            moved = v[i] - y_shift[i]
            total[i] += moved
            products[i] += (u[i] - x_shift[i]) * moved


@kernel("void(T[::1], T[::1], T[::1], T[::1], T[::1], T, T[::1])")
def channel_affine_block(x, a, y, b, c, floor, out):
    for start in range(0, len(x), len(a)):
        u, v, to = x[start : start + len(a)], y[start : start + len(a)], out[start : start + len(a)]
        for i in range(len(u)):
            value = a[i] * u[i] + b[i] * v[i] + c[i]
            to[i] = floor if value < floor else value  # a NaN stays a NaN


def _flat(*arrays: Array) -> list[Array]:
    if len({x.shape for x in arrays}) > 1:  # compiled loops do not check their bounds
        raise ValueError(f"expected arrays of one shape, got {[x.shape for x in arrays]}")
    return [dense(x).reshape(-1) for x in arrays]


def _along_row(per_channel: Array | float, C: int, dtype: np.dtype) -> Array:
    """The values of C channels, or one for all, repeated along a long row."""
    row = np.empty((max(1, _ROW // C), C), dtype)
    row[:] = per_channel
    return row.reshape(-1)


def channel_sums(x: Array, x_shift: Array, y: Array, y_shift: Array | float = 0.0) -> Array:
    """Σ (y - y_shift) and Σ (x - x_shift)(y - y_shift) per channel; see `reference.channel_sums`."""
    (x_flat, y_flat), add, C = _flat(x, y), channel_sums_block[x.dtype], x.shape[-1]
    x_row, y_row = (_along_row(shift, C, x.dtype) for shift in (x_shift, y_shift))

    def part(i: int, j: int) -> Array:
        sums, block = np.empty((2, len(x_row)), x.dtype), slice(i * C, j * C)
        add(x_flat[block], x_row, y_flat[block], y_row, sums)
        return sums.reshape(2, -1, C).sum(axis=1, dtype=np.float64)

    with np.errstate(invalid="ignore"):
        sums = np.sum(parallel(part, len(x_flat) // C, max(1, _BLOCK // C)), axis=0)
    if not np.isfinite(sums).all():  # rare: activations of 1e19 in float32
        return reference.channel_sums(x, x_shift, y, y_shift)
    sums[1] += (x_row[:C] - x_shift) * sums[0]  # what float32 took from the shift
    return sums


def channel_affine(
    x: Array, a: Array | float, y: Array, b: Array | float, c: Array | float, out: Array, floor: float = -math.inf
) -> Array:
    """out = max(a x + b y + c, floor), with a, b and c per channel; see `reference.channel_affine`."""
    C, limits = x.shape[-1], np.finfo(x.dtype)
    a, b, c = (np.full(C, value, np.float64) for value in (a, b, c))
    sizes = np.abs([a, b, c])
    if np.any(((sizes > 0) & (sizes < limits.tiny)) | (sizes > limits.max)):  # rare: activations of 1e18 in float32
        return reference.channel_affine(x, a, y, b, c, out, floor)
    (x_flat, y_flat, to), affine = _flat(x, y, out), channel_affine_block[x.dtype]
    a, b, c = (_along_row(value, C, x.dtype) for value in (a, b, c))

    def part(i: int, j: int) -> None:
        block = slice(i * C, j * C)
        affine(x_flat[block], a, y_flat[block], b, c, floor, to[block])

    parallel(part, len(x_flat) // C, max(1, _BLOCK // C))
    return out
