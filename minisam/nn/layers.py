"""The layers of a multilayer perceptron: Linear, ReLU, Tanh, Flatten."""

import math
from dataclasses import dataclass

import numpy as np

from minisam import kernels
from minisam.checks import Count
from minisam.nn.layer import Bilinear, FixedSlope, Layer, Shape, he_normal


@dataclass(frozen=True)
class Linear(Bilinear):
    """Affine map y = x W + b.

    Parameters are W (n_in, n_out) and b (n_out,); x is (N, n_in), y is (N, n_out).

    >>> Linear(3072, 10).output_shape((3072,))
    (10,)
    """

    n_in: Count
    n_out: Count

    @property
    def param_shapes(self) -> dict[str, Shape]:
        return {"W": (self.n_in, self.n_out), "b": (self.n_out,)}

    def init(self, params, rng):
        he_normal(params, rng)

    def output_shape(self, input_shape):
        if input_shape != (self.n_in,):
            raise self.refuse(f"(N, {self.n_in})", input_shape)
        return (self.n_out,)

    def multiply_adds(self, input_shape):
        return self.n_in * self.n_out

    def forward(self, params, x, env):
        W, b = params
        y = kernels.matmul(x, W, out=env.arena.empty((len(x), self.n_out), x.dtype))
        y += b
        return y, x  # backward needs only the input

    def backward(self, params, x, dy, grads, env, wants_dx=True):
        W, _ = params
        if grads:
            kernels.matmul(x.T, dy, out=grads[0])  # dL/dW = xᵀ dL/dy
            np.sum(dy, axis=0, out=grads[1])  # dL/db = Σₙ dL/dyₙ
        if not wants_dx:
            return None
        return kernels.matmul(dy, W.T, out=env.arena.empty(x.shape, x.dtype))  # dL/dx = dL/dy Wᵀ


@dataclass(frozen=True)
class ReLU(FixedSlope):
    """y = max(x, 0), elementwise; at the kink the derivative is taken as 0.

    With in_place=True y is written over x. `Sequential` sets it where nobody reads x again.

    >>> ReLU().output_shape((8, 8, 16))
    (8, 8, 16)
    """

    in_place: bool = False

    def forward(self, params, x, env):
        y = kernels.relu(x, out=x if self.in_place else env.arena.empty(x.shape, x.dtype))
        return y, y  # the sign of y tells where x was positive

    def backward(self, params, y, dy, grads, env, wants_dx=True):
        return kernels.relu_grad(y, dy, out=env.arena.empty(y.shape, y.dtype))

    def tangent(self, params, params_dot, y, x_dot, env):
        return kernels.relu_grad(y, x_dot, out=env.arena.empty(y.shape, y.dtype)), None


@dataclass(frozen=True)
class Tanh(Layer):
    """y = tanh x, elementwise, with dy/dx = 1 - y².

    >>> Tanh().output_shape((128,))
    (128,)
    """

    def forward(self, params, x, env):
        y = np.tanh(x, out=env.arena.empty(x.shape, x.dtype))
        return y, y

    def backward(self, params, y, dy, grads, env, wants_dx=True):
        return dy * (1 - y * y)

    def tangent(self, params, params_dot, y, x_dot, env):
        y_dot = x_dot * (1 - y * y)
        return y_dot, y_dot

    def backward_tangent(self, params, params_dot, y, y_dot, dy, dy_dot, grads_dot, env, wants_dx=True):
        return dy_dot * (1 - y * y) - 2 * y * y_dot * dy


@dataclass(frozen=True)
class Flatten(FixedSlope):
    """(N, H, W, C) to (N, H·W·C), pixel by pixel.

    >>> Flatten().output_shape((8, 8, 16))
    (1024,)
    """

    def output_shape(self, input_shape):
        return (math.prod(input_shape),)

    def forward(self, params, x, env):
        return x.reshape(len(x), -1), x.shape

    def backward(self, params, x_shape, dy, grads, env, wants_dx=True):
        return dy.reshape(x_shape)

    def tangent(self, params, params_dot, x_shape, x_dot, env):
        return x_dot.reshape(len(x_dot), -1), None
