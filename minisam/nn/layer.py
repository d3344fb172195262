"""A layer: a frozen configuration with a forward and a backward, and no state.

A layer holds no arrays. It reads its parameters from views of the network's one vector `theta`,
returns what its backward will need (the cache) to its caller, and *assigns* its gradients into
views of one vector `grad`: there is nothing to zero and nothing stale to read. Images are NHWC.

In every layer, dy stands for dL/dy: the gradient of the loss with respect to y, shaped like y.
"""

import math
from typing import Any

import numpy as np

from minisam.checks import Checked
from minisam.nn.env import Env

Array = np.ndarray
Shape = tuple[int, ...]


class Layer(Checked):
    """What every layer answers; the defaults are those of a layer without parameters.

    Shapes leave out the batch: `input_shape` (32, 32, 3) means x of shape (N, 32, 32, 3).
    """

    @property
    def param_shapes(self) -> dict[str, Shape]:
        """Names and shapes of the parameters, in the order in which they lie in theta."""
        return {}

    def init_stats(self, dtype: Any) -> list[Array]:
        """Running statistics to start from, like those that a training pass adds to env.stats."""
        return []

    def init(self, params: list[Array], rng: np.random.Generator) -> None:
        """Write initial values into params."""

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of y for x of this shape; ValueError where the layer cannot take it."""
        return input_shape

    def multiply_adds(self, input_shape: Shape) -> int:
        """Multiply-adds of the forward pass for one example (0 where there is no matrix)."""
        return 0

    def forward(self, params: list[Array], x: Array, env: Env) -> tuple[Array, Any]:
        """Return y and the cache that `backward` needs."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def backward(self, params: list[Array], cache: Any, dy: Array, grads: list[Array], env: Env, wants_dx=True) -> Any:
        """Assign dL/dparams into grads, unless that is empty, and return dL/dx.

        With wants_dx=False (the network's first layer with parameters) it may return None instead.
        """
        raise NotImplementedError(f"{type(self).__name__} must define backward")

    def tangent(self, params: list, params_dot: list, cache: Any, x_dot: Array | None, env: Env) -> tuple:
        """R{y} and R{cache}: how y and the cache change while params and x move along params_dot and x_dot.

        R{f} = d/dt f(params + t params_dot, x + t x_dot) at t = 0 (Pearlmutter 1994). x_dot is shaped like
        x; None stands for 0, and only layers with parameters are asked then. The second is for
        `backward_tangent`, whatever that needs.
        """
        raise NotImplementedError(f"{type(self).__name__} has no tangent: no Hessian-vector product")

    def backward_tangent(
        self, params, params_dot, cache, cache_dot, dy: Array, dy_dot: Array, grads_dot, env: Env, wants_dx=True
    ) -> Any:
        """Assign R{dL/dparams} into grads_dot and return R{dL/dx}, given dy and dy_dot = R{dy}."""
        raise NotImplementedError(f"{type(self).__name__} has no tangent: no Hessian-vector product")

    def refuse(self, expected: str, got: Shape) -> ValueError:
        got_text = ", ".join(["N", *map(str, got)])
        return ValueError(f"{type(self).__name__} expected x of shape {expected}, got ({got_text})")


class FixedSlope(Layer):
    """A layer without parameters whose dy/dx does not change with x, piece by piece: R{slope · dy} = slope · dy_dot."""

    def backward_tangent(self, params, params_dot, cache, cache_dot, dy, dy_dot, grads_dot, env, wants_dx=True):
        return self.backward(params, cache, dy_dot, grads_dot, env, wants_dx)


class Bilinear(Layer):
    """y = x · W + b with a product linear in x and in W, whose cache is x: all of R{} is the product rule."""

    def tangent(self, params, params_dot, x, x_dot, env):
        y_dot, _ = self.forward(params_dot, x, env)  # x Ẇ + ḃ
        if x_dot is not None:
            y_dot += self.forward([params[0], np.zeros_like(params[1])], x_dot, env)[0]  # ẋ W
        return y_dot, x_dot

    def backward_tangent(self, params, params_dot, x, x_dot, dy, dy_dot, grads_dot, env, wants_dx=True):
        dx_dot = self.backward(params, x, dy_dot, grads_dot, env, wants_dx)  # xᵀ ḋy, Σ ḋy and ḋy Wᵀ
        if x_dot is not None:
            others = [env.arena.empty(array.shape, array.dtype) for array in grads_dot]
            dx_other = self.backward(params_dot, x_dot, dy, others, env, wants_dx)  # ẋᵀ dy and dy Ẇᵀ
            grads_dot[0] += others[0]  # others[1] is Σ dy: b meets no x
            if wants_dx:
                dx_dot += dx_other
        return dx_dot


def he_normal(params: list[Array], rng: np.random.Generator) -> None:
    """W ~ N(0, 2 / fan_in), b = 0: keeps the variance through ReLU (He et al. 2015, eq. 10)."""
    W, b = params
    fan_in = math.prod(W.shape[:-1])
    W[...] = rng.standard_normal(W.shape) * math.sqrt(2 / fan_in)
    b[...] = 0
