"""Sums and affine maps channel by channel, for BatchNorm (twins in `reference`).

Arrays (N, …, C) are seen as pixels of C channels, and each is read once: NumPy would make a pass, and a
temporary, of every operation. A loop over a few channels is too short to be fast, so many pixels make
one long row, and what belongs to a channel is repeated along it.
"""

import math

import numba
import numpy as np

from minisam.checks import Array
from minisam.kernels import reference
from minisam.kernels.compiled import dense, kernel
from minisam.kernels.threads import n_runs, parallel

_ROW = 1 << 9  # numbers in a long row: a few such rows fit into the nearest cache
_RUN = 1 << 15  # numbers that a thread takes at once


@numba.njit(nogil=True, error_model="numpy")
def along_row(per_channel, x):
    """The values of C channels, again and again, in x's type."""
    C = len(per_channel)
    row = np.empty(max(1, _ROW // C) * C, x.dtype)
    for i in range(0, len(row), C):
        for k in range(C):
            row[i + k] = per_channel[k]
    return row


@numba.njit(nogil=True, error_model="numpy")
def affine(x, a, y, b, c, floor, out):
    """out = max(a x + b y + c, floor); a, b and c are rows."""
    for start in range(0, len(x), len(a)):
        u, v, to = x[start : start + len(a)], y[start : start + len(a)], out[start : start + len(a)]
        for i in range(len(u)):
            value = a[i] * u[i] + b[i] * v[i] + c[i]
            to[i] = floor if value < floor else value  # a NaN stays a NaN


@kernel("void(T[::1], f8[::1], T[::1], f8[::1], f8[:,:,::1])")
def channel_sums_run(run, start, stop, x, x_shift, y, y_shift, partial):
    C, a, b, sums = len(x_shift), along_row(x_shift, x), along_row(y_shift, y), partial[run]
    total, products = np.zeros_like(a), np.zeros_like(a)  # a sum for each place in a row: none gets many terms
    for first in range(start * C, stop * C, len(a)):
        last = min(first + len(a), stop * C)
        u, v = x[first:last], y[first:last]
        for i in range(len(u)):
            moved = v[i] - b[i]
            total[i] += moved
            products[i] += (u[i] - a[i]) * moved
    sums[:] = 0
    for i in range(0, len(a), C):
        for k in range(C):
            sums[0, k] += total[i + k]
            sums[1, k] += products[i + k]
    for k in range(C):
        sums[1, k] += (a[k] - x_shift[k]) * sums[0, k]  # what float32 took from the shift


@kernel("void(T[::1], T[::1], f8[:,::1], T, T[::1])")
def channel_affine_run(run, start, stop, x, y, coefficients, floor, out):
    C, in_range, limits = coefficients.shape[1], True, np.finfo(x.dtype)
    x, y, out, (a, b, c) = x[start * C : stop * C], y[start * C : stop * C], out[start * C : stop * C], coefficients
    for row in (a, b, c):
        for value in row:
            in_range &= value == 0 or limits.tiny <= abs(value) <= limits.max
    if in_range:
        affine(x, along_row(a, x), y, along_row(b, x), along_row(c, x), floor, out)
    else:  # rare: activations of 1e18 in float32
        affine(x, along_row(a, a), y, along_row(b, a), along_row(c, a), floor, out)


def _pixels(*arrays: Array) -> tuple[list[Array], int, int]:
    """The arrays flat, the number of pixels, and of runs."""
    if len({x.shape for x in arrays}) > 1:  # compiled loops do not check their bounds
        raise ValueError(f"expected arrays of one shape, got {[x.shape for x in arrays]}")
    flat, C = [dense(x).reshape(-1) for x in arrays], arrays[0].shape[-1]
    n = flat[0].size // C
    return flat, n, n_runs(n, max(1, _RUN // C))


def channel_sums(x: Array, x_shift: Array, y: Array, y_shift: Array | float = 0.0) -> Array:
    """Σ (y - y_shift) and Σ (x - x_shift)(y - y_shift) per channel; see `reference.channel_sums`."""
    (x_flat, y_flat), n, count = _pixels(x, y)
    C = x.shape[-1]
    shifts, partial = np.empty((2, C)), np.empty((count, 2, C))
    shifts[0], shifts[1] = x_shift, y_shift
    parallel(channel_sums_run, n, count, x_flat, shifts[0], y_flat, shifts[1], partial)
    with np.errstate(invalid="ignore"):
        sums = np.add.reduce(partial)
    if not np.isfinite(sums).all():  # rare: activations of 1e19 in float32
        return reference.channel_sums(x, x_shift, y, y_shift)
    return sums


def channel_affine(
    x: Array, a: Array | float, y: Array, b: Array | float, c: Array | float, out: Array, floor: float = -math.inf
) -> Array:
    """out = max(a x + b y + c, floor), with a, b and c per channel; see `reference.channel_affine`."""
    (x_flat, y_flat, to), n, count = _pixels(x, y, out)
    coefficients = np.empty((3, x.shape[-1]))
    coefficients[0], coefficients[1], coefficients[2] = a, b, c
    parallel(channel_affine_run, n, count, x_flat, y_flat, coefficients, floor, to)
    return out
