"""Loops over one flat vector, each a single pass through memory (twins in `reference`).

These are limited by memory bandwidth, so what NumPy would do in several passes with temporaries is
done in one, in the vectors' own type.
"""

import math

import numpy as np

from minisam.checks import Array
from minisam.kernels import reference
from minisam.kernels.compiled import dense, kernel
from minisam.kernels.threads import parallel

_BLOCK = 1 << 17  # elements: small enough to share out, large enough to be worth a call


@kernel("void(T[::1], T[::1])")
def relu_block(x, out):
    zero = x.dtype.type(0)
    for i in range(len(x)):
        out[i] = zero if x[i] < zero else x[i]  # a NaN stays a NaN


@kernel("void(T[::1], T[::1], T[::1])")
def relu_grad_block(y, dy, out):
    zero = y.dtype.type(0)
    for i in range(len(y)):
        out[i] = dy[i] if y[i] > 0 else zero


# The compiler may add in an order of its own, in several running sums: with one, each addition
# would wait for the one before.
@kernel("f8(T[::1], T[::1])", fastmath={"reassoc"})
def dot_block(a, b):
    total = 0.0
    for i in range(len(a)):
        total += np.float64(a[i]) * np.float64(b[i])
    return total


@kernel("void(T[::1], T[::1], T)")
def add_scaled_block(theta, g, scale):
    for i in range(len(theta)):
        theta[i] += scale * g[i]


@kernel("void(T[::1], T[::1], T, T)")
def gd_block(theta, g, lr, weight_decay):
    for i in range(len(theta)):
        theta[i] -= lr * (g[i] + weight_decay * theta[i])


@kernel("void(T[::1], T[::1], T[::1], T, T, T, b1)")
def momentum_block(theta, g, velocity, lr, momentum, weight_decay, nesterov):
    for i in range(len(theta)):
        slope = g[i] + weight_decay * theta[i]
        v = momentum * velocity[i] + slope
        velocity[i] = v
        theta[i] -= lr * (slope + momentum * v if nesterov else v)


@kernel("void(T[::1], T[::1], T[::1], T[::1], T, T, T, T, T, T, T, T)")
def adam_block(theta, g, m, v, step_size, decay, beta1, beta2, rest1, rest2, inverse_root, eps):
    for i in range(len(theta)):
        first = beta1 * m[i] + rest1 * g[i]
        second = beta2 * v[i] + rest2 * g[i] * g[i]
        m[i], v[i] = first, second  # and not read again: a load waits for the store before it
        theta[i] -= step_size * first / (np.sqrt(second) * inverse_root + eps) + decay * theta[i]


def _flat(x: Array) -> Array:
    return dense(x).reshape(-1)


def _blockwise(block, *vectors: Array, scalars: tuple = ()) -> None:
    """Run block(*slices, *scalars) over slices of _BLOCK elements."""
    if len({len(x) for x in vectors}) > 1:  # compiled loops do not check their bounds
        raise ValueError(f"expected vectors of one length, got {[len(x) for x in vectors]}")

    if len(vectors[0]) <= _BLOCK:
        block(*vectors, *scalars)
    else:
        parallel(lambda i, j: block(*[x[i:j] for x in vectors], *scalars), len(vectors[0]), _BLOCK)


def relu(x: Array, out: Array) -> Array:
    """out = max(x, 0); see `reference.relu`."""
    _blockwise(relu_block[x.dtype], _flat(x), out.reshape(-1))
    return out


def relu_grad(y: Array, dy: Array, out: Array) -> Array:
    """out = dy where y > 0, else 0; see `reference.relu_grad`."""
    _blockwise(relu_grad_block[y.dtype], _flat(y), _flat(dy), out.reshape(-1))
    return out


def dot(a: Array, b: Array) -> float:
    """aᵀb, summed in float64, block by block in a fixed order; see `reference.dot`."""
    a, b, block = _flat(a), _flat(b), dot_block[a.dtype]
    if len(a) != len(b):
        raise ValueError(f"expected vectors of one length, got {len(a)} and {len(b)}")
    return float(sum(parallel(lambda i, j: block(a[i:j], b[i:j]), len(a), _BLOCK)))


def norm(g: Array) -> float:
    """‖g‖₂ = √(gᵀg); see `reference.norm`."""
    return math.sqrt(dot(g, g))


def add_scaled(theta: Array, scale: float, g: Array, out: Array) -> Array:
    """out = theta + scale g; see `reference.add_scaled`."""
    if abs(scale) > float(np.finfo(theta.dtype).max):  # rare: SAM's rho/‖g‖ for a gradient of 1e-40
        return reference.add_scaled(theta, scale, g, out)
    add = add_scaled_block[theta.dtype]

    def copy_and_add(out: Array, theta: Array, g: Array) -> None:
        np.copyto(out, theta)
        add(out, g, scale)  # in place: a loop over three arrays that may overlap is slow

    if out is theta:
        _blockwise(add, out, _flat(g), scalars=(scale,))
    else:
        _blockwise(copy_and_add, out, _flat(theta), _flat(g))
    return out


def gd_update(theta, g, lr, weight_decay):
    """One step of gradient descent, in place; see `reference.gd_update`."""
    _blockwise(gd_block[theta.dtype], theta, _flat(g), scalars=(lr, weight_decay))


def momentum_update(theta, g, velocity, lr, momentum, weight_decay, nesterov):
    """One step of heavy-ball or Nesterov momentum, in place; see `reference.momentum_update`."""
    block = momentum_block[theta.dtype]
    _blockwise(block, theta, _flat(g), velocity, scalars=(lr, momentum, weight_decay, nesterov))


def adam_update(theta, g, m, v, step_size, decay, beta1, beta2, root_bias2, eps):
    """One step of Adam, in place; see `reference.adam_update`."""
    scalars = (step_size, decay, beta1, beta2, 1 - beta1, 1 - beta2, 1 / root_bias2, eps)
    _blockwise(adam_block[theta.dtype], theta, _flat(g), m, v, scalars=scalars)
