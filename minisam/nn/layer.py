"""A layer: a frozen configuration with a forward and a backward, and no state.

A layer holds no arrays. It reads its parameters from views of the network's one vector `theta`,
returns what its backward will need (the cache) to its caller, and *assigns* its gradients into
views of one vector `grad`: there is nothing to zero and nothing stale to read. Images are NHWC.

In every layer dy stands for dL/dy, the gradient of the loss with respect to y, in y's shape. A
dotted name, such as x_dot, is the rate at which something changes while theta moves along a vector v:
Pearlmutter's (1994) R{x} = d/dt x(θ + t v) at t = 0. Only Hessian-vector products need those.
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from minisam.checks import Array, Checked
from minisam.nn.env import Env

Shape = tuple[int, ...]

UNASSIGNED = -3e38  # marks a gradient until backward assigns it: within float32, and no sum moves it


class Point(NamedTuple):
    """One evaluation of a layer: its parameters, the cache that forward left, the dy that backward was given."""

    params: list[Array]
    cache: Any
    dy: Any  # dL/dy; a layer made of layers keeps one for each of them


class Motion(NamedTuple):
    """The rates of change of a Point's fields along v, once `tangent` has found the cache's."""

    params_dot: list[Array]
    cache_dot: Any
    dy_dot: Array


class Layer(Checked):
    """The interface of a layer. Write `forward` and `backward`; the rest has defaults.

    A layer with parameters also names them (`param_shapes`) and initialises them (`init`); one that
    changes shapes says how (`output_shape`). With `tangent` and `backward_tangent` there are
    Hessian-vector products through it. Shapes leave out the batch: `input_shape` (32, 32, 3) means x
    of shape (N, 32, 32, 3). Returned arrays may be new, or from env.arena, which saves time; x is only read.

    >>> class Square(Layer):
    ...     def forward(self, params, x, env):
    ...         return x * x, x
    ...     def backward(self, params, x, dy, grads, env):
    ...         return 2 * x * dy
    >>> from minisam.analysis import gradcheck
    >>> gradcheck(Square(), np.array([[1.0, -2.0]]), [], np.random.default_rng(0)) < 1e-8
    True
    """

    @property
    def param_shapes(self) -> dict[str, Shape]:
        """Names and shapes of the parameters, in the order in which they lie in theta."""
        return {}

    def init(self, params: list[Array], rng: np.random.Generator) -> None:
        """Write initial values into params."""

    def init_stats(self, dtype: Any) -> list[Array]:
        """Running statistics to start from, in the order in which forward appends batch statistics to env.stats."""
        return []

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of y for x of this shape; ValueError if the layer cannot take such an x."""
        return input_shape

    def multiply_adds(self, input_shape: Shape) -> int:
        """Multiply-adds of the forward pass for one example; 0 for a layer without a matrix."""
        return 0

    def forward(self, params: list[Array], x: Array, env: Env) -> tuple[Array, Any]:
        """Return y and the cache: whatever `backward` will need."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def backward(self, params: list[Array], cache: Any, dy: Array, grads: list[Array], env: Env) -> Array:
        """Assign dL/dparams into the arrays of grads and return dL/dx."""
        raise NotImplementedError(f"{type(self).__name__} must define backward")

    def tangent(self, at: Point, params_dot: list[Array], x_dot: Array, env: Env) -> tuple[Array, Any]:
        """Return y_dot and cache_dot: how y and the cache change while params and x change at these rates.

        cache_dot is passed on to `backward_tangent` and may be anything that it needs.
        """
        raise NotImplementedError(f"{type(self).__name__} has no tangent: no Hessian-vector product")

    def backward_tangent(self, at: Point, moving: Motion, grads_dot: list[Array], env: Env) -> Array:
        """Assign the rates of dL/dparams into grads_dot and return that of dL/dx."""
        raise NotImplementedError(f"{type(self).__name__} has no tangent: no Hessian-vector product")

    # At a network's input x is data: no one needs dL/dx, and x does not move. A layer that can save work
    # there overrides backward_at_input and tangent_at_input; a layer made of layers also linearize.

    def backward_at_input(self, params: list[Array], cache: Any, dy: Array, grads: list[Array], env: Env) -> None:
        """Assign dL/dparams into grads, and no more."""
        self.backward(params, cache, dy, grads, env)

    def tangent_at_input(self, at: Point, params_dot: list[Array], x_dot: Array, env: Env) -> tuple[Array, Any]:
        """The same as `tangent`, told that x_dot is 0."""
        return self.tangent(at, params_dot, x_dot, env)

    def linearize(self, params: list[Array], cache: Any, dy: Array, env: Env) -> tuple[Array, Any]:
        """Return dL/dx, without keeping dL/dparams, and the value for `Point.dy`."""
        return self.backward(params, cache, dy, [np.empty_like(param) for param in params], env), dy

    def unassigned(self, i: int, method: str = "backward") -> ValueError:
        """The error for a gradient, number i, that is still marked after `method`."""
        name = list(self.param_shapes)[i]
        how = f"write grads[{i}][...] = …, since grads[{i}] = … changes only the list"
        return ValueError(f"{type(self).__name__}.{method} left grads[{i}] ({name}) unassigned, or a part of it: {how}")

    def refuse(self, expected: str, got: Shape) -> ValueError:
        """The error for x of a shape that the layer cannot take."""
        got_text = ", ".join(["N", *map(str, got)])
        return ValueError(f"{type(self).__name__} expected x of shape {expected}, got ({got_text})")


@dataclass(frozen=True)
class Rectifying(Layer):
    """A layer that can apply the ReLU after it, while it writes y: y = max(y, 0). See `reordering`.

    Only forward does so; its backward gets dL/dy as the ReLU's backward has made it.
    """

    rectified: bool = field(default=False, repr=False, kw_only=True)

    @property
    def floor(self) -> float:
        """The least that forward lets y be."""
        return 0.0 if self.rectified else -math.inf


class FixedSlope(Layer):
    """A layer without parameters whose dy/dx does not change with x, at least piecewise, as ReLU's.

    Then dx = slope · dy moves only with dy, and its tangent is `backward` itself. A subclass defines
    forward, backward and tangent.
    """

    def backward_tangent(self, at, moving, grads_dot, env):
        return self.backward(at.params, at.cache, moving.dy_dot, grads_dot, env)


class Bilinear(Layer):
    """y = x · W + b, with a product that is linear in x and in W; the cache is x.

    A subclass defines that map and the two halves of backward; all tangents are then the product rule.
    """

    def affine(self, params: list[Array], x: Array, env: Env) -> Array:
        """Return x · W + b."""
        raise NotImplementedError(f"{type(self).__name__} must define affine")

    def weight_gradient(self, x: Array, dy: Array, grads: list[Array]) -> None:
        """Assign dL/dW and dL/db into grads."""
        raise NotImplementedError(f"{type(self).__name__} must define weight_gradient")

    def input_gradient(self, params: list[Array], x: Array, dy: Array, env: Env) -> Array:
        """Return dL/dx, which depends on x only by its shape."""
        raise NotImplementedError(f"{type(self).__name__} must define input_gradient")

    def forward(self, params, x, env):
        return self.affine(params, x, env), x  # backward needs only the input

    def backward(self, params, x, dy, grads, env):
        self.weight_gradient(x, dy, grads)
        return self.input_gradient(params, x, dy, env)

    def backward_at_input(self, params, x, dy, grads, env):
        self.weight_gradient(x, dy, grads)

    def linearize(self, params, x, dy, env):
        return self.input_gradient(params, x, dy, env), dy

    def tangent(self, at, params_dot, x_dot, env):
        y_dot = self.affine(params_dot, at.cache, env)  # x · Ẇ + ḃ
        y_dot += self.affine([at.params[0], np.zeros_like(at.params[1])], x_dot, env)  # ẋ · W
        return y_dot, x_dot

    def tangent_at_input(self, at, params_dot, x_dot, env):
        return self.affine(params_dot, at.cache, env), None

    def backward_tangent(self, at, moving, grads_dot, env):
        x, x_dot = at.cache, moving.cache_dot
        self.weight_gradient(x, moving.dy_dot, grads_dot)
        if x_dot is None:  # at the network's input
            return None
        others = [env.arena.empty(array.shape, array.dtype) for array in grads_dot]
        self.weight_gradient(x_dot, at.dy, others)
        grads_dot[0] += others[0]  # b is not multiplied by x, so ẋ adds nothing to db
        dx_dot = self.input_gradient(at.params, x, moving.dy_dot, env)
        dx_dot += self.input_gradient(moving.params_dot, x, at.dy, env)
        return dx_dot


def he_normal(params: list[Array], rng: np.random.Generator) -> None:
    """W ~ N(0, 2 / fan_in), b = 0: keeps the variance through ReLU (He et al. 2015, eq. 10)."""
    W, b = params
    fan_in = math.prod(W.shape[:-1])
    W[...] = rng.standard_normal(W.shape) * math.sqrt(2 / fan_in)
    b[...] = 0
