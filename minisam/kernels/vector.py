"""Loops over one flat vector, each a single pass through memory (twins in `reference`).

These are limited by memory bandwidth, so what NumPy would do in several passes with temporaries is
done in one, in the vectors' own type.
"""

import math

import numpy as np

from minisam.checks import Array
from minisam.kernels import reference
from minisam.kernels.compiled import Kernel, dense, kernel
from minisam.kernels.threads import n_runs, parallel

_RUN = 1 << 15  # elements: small enough to share out, large enough to be worth a thread


@kernel("void(T[::1], T[::1])")
def relu_run(run, start, stop, x, out):
    x, out, zero = x[start:stop], out[start:stop], x.dtype.type(0)
    for i in range(len(x)):
        out[i] = zero if x[i] < zero else x[i]  # a NaN stays a NaN


@kernel("void(T[::1], T[::1], T[::1])")
def relu_grad_run(run, start, stop, y, dy, out):
    y, dy, out, zero = y[start:stop], dy[start:stop], out[start:stop], y.dtype.type(0)
    for i in range(len(y)):
        out[i] = dy[i] if y[i] > 0 else zero


# The compiler may add in an order of its own, in several running sums: with one, each addition
# would wait for the one before.
@kernel("void(T[::1], T[::1], f8[::1])", fastmath={"reassoc"})
def dot_run(run, start, stop, a, b, sums):
    a, b, total = a[start:stop], b[start:stop], 0.0
    for i in range(len(a)):
        total += np.float64(a[i]) * np.float64(b[i])
    sums[run] = total


@kernel("void(T[::1], T[::1], T[::1], T)")
def add_scaled_run(run, start, stop, theta, g, out, scale):
    theta, g, out = theta[start:stop], g[start:stop], out[start:stop]
    for i in range(len(theta)):
        out[i] = theta[i] + scale * g[i]


@kernel("void(T[::1], T[::1], T, T)")
def gd_run(run, start, stop, theta, g, lr, weight_decay):
    theta, g = theta[start:stop], g[start:stop]
    for i in range(len(theta)):
        theta[i] -= lr * (g[i] + weight_decay * theta[i])


@kernel("void(T[::1], T[::1], T[::1], T, T, T, b1)")
def momentum_run(run, start, stop, theta, g, velocity, lr, momentum, weight_decay, nesterov):
    theta, g, velocity = theta[start:stop], g[start:stop], velocity[start:stop]
    for i in range(len(theta)):
        slope = g[i] + weight_decay * theta[i]
        v = momentum * velocity[i] + slope
        velocity[i] = v
        theta[i] -= lr * (slope + momentum * v if nesterov else v)


@kernel("void(T[::1], T[::1], T[::1], T[::1], T, T, T, T, T, T, T, T)")
def adam_run(run, start, stop, theta, g, m, v, step_size, decay, beta1, beta2, rest1, rest2, inverse_root, eps):
    theta, g, m, v = theta[start:stop], g[start:stop], m[start:stop], v[start:stop]
    for i in range(len(theta)):
        first = beta1 * m[i] + rest1 * g[i]
        second = beta2 * v[i] + rest2 * g[i] * g[i]
        m[i], v[i] = first, second  # and not read again: a load waits for the store before it
        theta[i] -= step_size * first / (np.sqrt(second) * inverse_root + eps) + decay * theta[i]


def _flat(x: Array) -> Array:
    return dense(x).reshape(-1)


def _all(loop: Kernel, *vectors: Array, scalars: tuple = ()) -> None:
    """The loop over whole vectors."""
    if len({len(x) for x in vectors}) > 1:  # compiled loops do not check their bounds
        raise ValueError(f"expected vectors of one length, got {[len(x) for x in vectors]}")
    n = len(vectors[0])
    parallel(loop, n, n_runs(n, _RUN), *vectors, *scalars)


def relu(x: Array, out: Array) -> Array:
    """out = max(x, 0); see `reference.relu`."""
    _all(relu_run, _flat(x), out.reshape(-1))
    return out


def relu_grad(y: Array, dy: Array, out: Array) -> Array:
    """out = dy where y > 0, else 0; see `reference.relu_grad`."""
    _all(relu_grad_run, _flat(y), _flat(dy), out.reshape(-1))
    return out


def dot(a: Array, b: Array) -> float:
    """aᵀb, summed in float64, run by run in a fixed order; see `reference.dot`."""
    a, b = _flat(a), _flat(b)
    if len(a) != len(b):
        raise ValueError(f"expected vectors of one length, got {len(a)} and {len(b)}")
    sums = np.empty(n_runs(len(a), _RUN))
    parallel(dot_run, len(a), len(sums), a, b, sums)
    return float(sums.sum())


def norm(g: Array) -> float:
    """‖g‖₂ = √(gᵀg); see `reference.norm`."""
    return math.sqrt(dot(g, g))


def add_scaled(theta: Array, scale: float, g: Array, out: Array) -> Array:
    """out = theta + scale g; see `reference.add_scaled`."""
    if abs(scale) > float(np.finfo(theta.dtype).max):  # rare: SAM's rho/‖g‖ for a gradient of 1e-40
        return reference.add_scaled(theta, scale, g, out)
    _all(add_scaled_run, _flat(theta), _flat(g), out, scalars=(scale,))
    return out


def gd_update(theta, g, lr, weight_decay):
    """One step of gradient descent, in place; see `reference.gd_update`."""
    _all(gd_run, theta, _flat(g), scalars=(lr, weight_decay))


def momentum_update(theta, g, velocity, lr, momentum, weight_decay, nesterov):
    """One step of heavy-ball or Nesterov momentum, in place; see `reference.momentum_update`."""
    _all(momentum_run, theta, _flat(g), velocity, scalars=(lr, momentum, weight_decay, nesterov))


def adam_update(theta, g, m, v, step_size, decay, beta1, beta2, root_bias2, eps):
    """One step of Adam, in place; see `reference.adam_update`."""
    scalars = (step_size, decay, beta1, beta2, 1 - beta1, 1 - beta2, 1 / root_bias2, eps)
    _all(adam_run, theta, _flat(g), m, v, scalars=scalars)
