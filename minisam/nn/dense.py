"""The layers of a multilayer perceptron: Linear, ReLU, Tanh, Flatten."""

import math
from dataclasses import dataclass, field

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

    def affine(self, params, x, env):
        W, b = params
        y = kernels.matmul(x, W, out=env.arena.empty((len(x), self.n_out), x.dtype))
        y += b
        return y

    def weight_gradient(self, x, dy, grads):
        dW, db = grads
        kernels.matmul(x.T, dy, out=dW)  # dL/dW = xᵀ dL/dy
        np.sum(dy, axis=0, out=db)  # dL/db = Σₙ dL/dyₙ

    def input_gradient(self, params, x, dy, env):
        W, _ = params
        return kernels.matmul(dy, W.T, out=env.arena.empty(x.shape, x.dtype))  # dL/dx = dL/dy Wᵀ


@dataclass(frozen=True)
class ReLU(FixedSlope):
    """y = max(x, 0), elementwise; at the kink the derivative is taken as 0.

    With applied=True the layer before has already done that, and x is y.

    >>> ReLU().output_shape((8, 8, 16))
    (8, 8, 16)
    """

    applied: bool = field(default=False, repr=False)

    def forward(self, params, x, env):
        y = x if self.applied else kernels.relu(x, out=env.arena.empty(x.shape, x.dtype))
        return y, y  # the sign of y tells where x was positive

    def backward(self, params, y, dy, grads, env):
        return kernels.relu_grad(y, dy, out=env.arena.empty(y.shape, y.dtype))

    def tangent(self, at, params_dot, x_dot, env):
        return self.backward([], at.cache, x_dot, [], env), None


@dataclass(frozen=True)
class Tanh(Layer):
    """y = tanh x, elementwise, with dy/dx = 1 - y².

    >>> Tanh().output_shape((128,))
    (128,)
    """

    def forward(self, params, x, env):
        y = np.tanh(x, out=env.arena.empty(x.shape, x.dtype))
        return y, y

    def backward(self, params, y, dy, grads, env):
        return dy * (1 - y * y)

    def tangent(self, at, params_dot, x_dot, env):
        y = at.cache
        y_dot = x_dot * (1 - y * y)
        return y_dot, y_dot

    def backward_tangent(self, at, moving, grads_dot, env):
        y, y_dot = at.cache, moving.cache_dot
        return moving.dy_dot * (1 - y * y) - 2 * y * y_dot * at.dy


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

    def backward(self, params, x_shape, dy, grads, env):
        return dy.reshape(x_shape)

    def tangent(self, at, params_dot, x_dot, env):
        return x_dot.reshape(len(x_dot), -1), None
