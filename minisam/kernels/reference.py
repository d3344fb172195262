"""Every kernel as plain NumPy, written to be read.

Same names and signatures as the fast twins in `gemm`, `tile`, `conv` (which hands 3×3 to `winograd`), `pool`,
`channel` and `vector`; a test holds each pair equal (average pooling has this version only). Results are
written into `out`, which the caller allocates. Images are NHWC: x[n, row, column, channel]. A
convolution's weight is (kH, kW, C_in, C_out). PyTorch's NCHW and OIHW are one transpose away:
x.transpose(0, 3, 1, 2) and W.transpose(3, 2, 0, 1).

Without Numba these are minisam's kernels.
"""

import numpy as np
from numpy.lib import stride_tricks

from minisam.checks import Array

Pair = tuple[int, int]

# --- gemm -----------------------------------------------------------------------------------------


def matmul(a: Array, b: Array, out: Array) -> Array:
    """out = a b, with a (M, K), b (K, N) and out (M, N)."""
    return np.matmul(a, b, out=out)


# --- tile -----------------------------------------------------------------------------------------


def strip(n, length, A, a, a_steps, B, b, b_steps, S, s, s_step, C, c, c_step, R, P, floor):
    """C[m, :] = max(S[m, :] + Σᵣₚ A[m, r, p] · B[r, p, :], floor) for m < n, r < R, p < P, on flat arrays with steps.

    A[m, r, p] is A[a + m·a_steps[0] + r·a_steps[1] + p·a_steps[2]], B[r, p, j] is B[b + r·b_steps[0] +
    p·b_steps[1] + j], S[m, j] is S[s + m·s_step + j], and C likewise; j < length, whole vectors. S may
    be C, and None stands for zeros.
    """
    size = A.itemsize

    def view(array, start, shape, steps):
        return stride_tricks.as_strided(array[start:], shape, [size * step for step in steps])

    sums = np.einsum("mrp,rpj->mj", view(A, a, (n, R, P), a_steps), view(B, b, (R, P, length), (*b_steps, 1)))
    if S is not None:
        sums = view(S, s, (n, length), (s_step, 1)) + sums
    view(C, c, (n, length), (c_step, 1))[...] = np.maximum(sums, floor)


# --- conv -----------------------------------------------------------------------------------------


def _pad(x: Array, kernel: Pair, stride: int, padding: Pair, out_size: Pair) -> Array:
    """x with zeros around it: `padding` rows above and columns before, the rest as out needs."""
    ends = [(n - 1) * stride + k for n, k in zip(out_size, kernel, strict=True)]
    after = [max(0, end - size - p) for end, size, p in zip(ends, x.shape[1:3], padding, strict=True)]
    return np.pad(x, ((0, 0), (padding[0], after[0]), (padding[1], after[1]), (0, 0)))


def _windows(x: Array, kernel: Pair, stride: int, padding: Pair, out_size: Pair) -> Array:
    """The windows (N, H_out, W_out, C, kH, kW) of images (N, H, W, C) padded so."""
    x = _pad(x, kernel, stride, padding, out_size)
    view = stride_tricks.sliding_window_view(x, kernel, axis=(1, 2))
    return view[:, ::stride, ::stride][:, : out_size[0], : out_size[1]]


def conv2d(x: Array, W: Array, b: Array, stride: int, padding: Pair, out: Array, floor: float = -np.inf) -> Array:
    """y[n,r,c,f] = max(b[f] + Σᵢⱼₖ x[n, r·stride + i - above, c·stride + j - before, k] W[i,j,k,f], floor).

    x (N, H, W, C), W (kH, kW, C, F), b (F,), out (N, H_out, W_out, F), padding = (above, before).
    x is zero outside its borders; how far the zeros reach below and after follows from out's shape.
    """
    kernel, out_size = W.shape[:2], out.shape[1:3]
    windows = _windows(x, kernel, stride, padding, out_size)
    out[...] = np.maximum(np.einsum("nrckij,ijkf->nrcf", windows, W, optimize=True) + b, floor)
    return out


def conv2d_weight_grad(x: Array, dy: Array, stride: int, padding: Pair, dW: Array, db: Array) -> None:
    """dW[i,j,k,f] = Σ_{n,r,c} x[n, r·stride + i - above, …, k] dy[n,r,c,f] and db[f] = Σ dy."""
    kernel, out_size = dW.shape[:2], dy.shape[1:3]
    windows = _windows(x, kernel, stride, padding, out_size)
    dW[...] = np.einsum("nrckij,nrcf->ijkf", windows, dy, optimize=True)
    db[...] = dy.sum(axis=(0, 1, 2))


def conv2d_input_grad(dy: Array, W: Array, stride: int, padding: Pair, out: Array) -> Array:
    """dx[n, r·stride + i - above, c·stride + j - before, k] += Σ_f dy[n,r,c,f] W[i,j,k,f]."""
    (above, before), (_, H, width, _) = padding, out.shape
    _, H_out, W_out, _ = dy.shape
    dx = _pad(np.zeros_like(out), W.shape[:2], stride, padding, (H_out, W_out))
    for i, j in np.ndindex(W.shape[:2]):
        rows = slice(i, i + stride * H_out, stride)
        columns = slice(j, j + stride * W_out, stride)
        dx[:, rows, columns] += dy @ W[i, j].T
    out[...] = dx[:, above : above + H, before : before + width]
    return out


# --- pool -----------------------------------------------------------------------------------------


def max_pool2d(x: Array, size: int, stride: int, out: Array, winner: Array) -> Array:
    """The largest value of each size × size window, and where it was.

    x (N, H, W, C); out (N, H_out, W_out, C) with H_out = (H - size) // stride + 1; winner, uint8 of
    the same shape, is the first maximum's place i·size + j in its window. A NaN counts as largest.
    """
    _, H_out, W_out, _ = out.shape
    windows = _windows(x, (size, size), stride, (0, 0), (H_out, W_out)).reshape(*out.shape, size * size)
    winner[...] = np.argmax(windows, axis=-1)
    out[...] = np.take_along_axis(windows, winner[..., None].astype(np.intp), axis=-1)[..., 0]
    return out


def max_pool2d_picked(x: Array, winner: Array, size: int, stride: int, out: Array) -> Array:
    """out[n,r,c,k] = x in the place of the window that winner names: the derivative of max along x."""
    n, r, c, k = np.indices(out.shape)
    i, j = np.divmod(winner.astype(np.intp), size)
    out[...] = x[n, r * stride + i, c * stride + j, k]
    return out


def max_pool2d_grad(dy: Array, winner: Array, size: int, stride: int, out: Array) -> Array:
    """dL/dx (out, the shape of x): each window hands its dy to the input that won it."""
    out[...] = 0
    n, r, c, k = np.indices(dy.shape)
    i, j = np.divmod(winner.astype(np.intp), size)
    np.add.at(out, (n, r * stride + i, c * stride + j, k), dy)
    return out


def avg_pool2d(x: Array, size: int, stride: int, out: Array) -> Array:
    """The mean of each size × size window; shapes as in `max_pool2d`."""
    _, H_out, W_out, _ = out.shape
    out[...] = 0
    for i, j in np.ndindex(size, size):  # a pass over contiguous channels for each place
        out += x[:, i : i + stride * H_out : stride, j : j + stride * W_out : stride]
    out /= size**2
    return out


def avg_pool2d_grad(dy: Array, size: int, stride: int, out: Array) -> Array:
    """dL/dx (out, the shape of x): each window spreads dy / size² over its inputs."""
    _, H_out, W_out, _ = dy.shape
    out[...], share = 0, dy / size**2
    for i, j in np.ndindex(size, size):
        out[:, i : i + stride * H_out : stride, j : j + stride * W_out : stride] += share
    return out


# --- channel --------------------------------------------------------------------------------------


def channel_sums(x: Array, x_shift: Array, y: Array, y_shift: Array | float = 0.0) -> Array:
    """Σ (y - y_shift) and Σ (x - x_shift)(y - y_shift) over all axes but the last: (2, C) float64 of x, y (N, …, C).

    y_shift must be exact in y's dtype, such as a value of y.
    """
    x, y = (array.reshape(-1, array.shape[-1]).astype(np.float64) for array in (x, y))
    y -= y_shift
    return np.stack([y.sum(axis=0), ((x - x_shift) * y).sum(axis=0)])


def channel_affine(
    x: Array, a: Array | float, y: Array, b: Array | float, c: Array | float, out: Array, floor: float = -np.inf
) -> Array:
    """out = max(a x + b y + c, floor), with numbers a, b and c for each channel (C,), or one for all.

    A NaN stays a NaN. With floor = 0 that is an affine map and the ReLU after it.
    """
    out[...] = np.maximum(a * x + b * y + c, floor)
    return out


# --- vector ---------------------------------------------------------------------------------------


def relu(x: Array, out: Array) -> Array:
    """out = max(x, 0), any shape; a NaN stays a NaN."""
    return np.maximum(x, 0, out=out)


def relu_grad(y: Array, dy: Array, out: Array) -> Array:
    """out = dy where y = relu(x) > 0, else 0: the derivative at the kink is taken as 0."""
    out[...] = np.where(y > 0, dy, 0)  # not dy · (y > 0): ∞ · 0 is NaN
    return out


def dot(a: Array, b: Array) -> float:
    """aᵀb of two vectors, summed in float64: in float32, (1e-23)² is 0.

    (In float64 itself, entries of 1e-162 and below, or 1e154 and above, leave its range.)
    """
    return float(a.astype(np.float64) @ b.astype(np.float64))


def norm(g: Array) -> float:
    """‖g‖₂ = √(gᵀg) of a vector."""
    return float(np.sqrt(dot(g, g)))


def add_scaled(theta: Array, scale: float, g: Array, out: Array) -> Array:
    """out = theta + scale g, in float64, since scale = rho/‖g‖ may exceed float32."""
    out[...] = theta.astype(np.float64) + scale * g.astype(np.float64)
    return out


def gd_update(theta, g, lr, weight_decay):
    """θ ← θ - lr (g + λθ), in place. (θ (1 - lr λ) - lr g would round 1 - lr λ to float32, and a small λ away.)"""
    theta -= lr * (g + weight_decay * theta)


def momentum_update(theta, g, velocity, lr, momentum, weight_decay, nesterov):
    """v ← μ v + g', θ ← θ - lr v with g' = g + λθ; Nesterov: θ ← θ - lr (g' + μ v). In place."""
    g = g + weight_decay * theta
    velocity[...] = momentum * velocity + g
    theta -= lr * (g + momentum * velocity if nesterov else velocity)


def adam_update(theta, g, m, v, step_size, decay, beta1, beta2, root_bias2, eps):
    """θ ← θ - step_size m / (√v / root_bias2 + eps) - decay θ, after m and v took in g. In place."""
    m[...] = beta1 * m + (1 - beta1) * g
    v[...] = beta2 * v + (1 - beta2) * g * g
    theta -= step_size * m / (np.sqrt(v) / root_bias2 + eps) + decay * theta
