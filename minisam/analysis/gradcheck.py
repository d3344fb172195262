"""Is a gradient right? Compare it with differences of the function itself, on every index.

A layer's outputs are weighted with a random cotangent c before they are summed to a number. With
c = 1 mistakes could cancel: softmax outputs sum to 1, so a backward that returns 0 would pass.
"""

from collections.abc import Callable

import numpy as np

from minisam.checks import Array
from minisam.nn.env import Env
from minisam.nn.layer import UNASSIGNED, Layer, Motion, Point
from minisam.nn.losses import Loss


def numerical_gradient(f: Callable[[Array], float], x: Array, step: float = 1e-5) -> Array:
    """Central differences (f(x + h eᵢ) - f(x - h eᵢ)) / 2h along every axis i of x, in float64.

    Their error is O(h²) for a smooth f; across a kink they are meaningless.

    >>> numerical_gradient(lambda x: float(x @ x), np.array([1.0, -2.0])).round(6).tolist()
    [2.0, -4.0]
    """
    x = np.array(x, np.float64)
    slope = np.empty_like(x)
    for i in np.ndindex(x.shape):
        centre = x[i]
        x[i] = centre + step
        above = f(x)
        x[i] = centre - step
        below = f(x)
        x[i] = centre
        slope[i] = (above - below) / (2 * step)
    return slope


RESOLVED = 1e-4  # differences of a function of size 1 cannot resolve gradients much smaller than this


def relative_error(actual: Array, expected: Array, floor: float = 0.0) -> float:
    """The largest difference, divided by max(max |expected|, floor) unless that is 0."""
    scale = np.abs(expected).max(initial=floor)
    difference = np.abs(np.asarray(actual) - expected).max(initial=0.0)
    return float(difference / scale) if scale else float(difference)


def _unassigned(params: list[Array]) -> list[Array]:
    return [np.full_like(param, UNASSIGNED) for param in params]


def _require_assigned(layer: Layer, grads: list[Array], method: str = "backward") -> None:
    for i, grad in enumerate(grads):
        if (grad == UNASSIGNED).any():
            raise layer.unassigned(i, method)


def gradcheck(layer: Layer, x: Array, params: list[Array], rng: np.random.Generator, running=None) -> float:
    """The largest relative error of a layer's gradients, with respect to its input and every parameter.

    x is (N, *input_shape) float64, params are float64 arrays of the layer's param_shapes. Keep x
    away from kinks (0 for ReLU, ties for a maximum): no gradient is right there. With `running`
    statistics this checks evaluation, otherwise training.

    Raises:
        ValueError: a gradient of another shape; or one that backward never assigned, such as after
            `grads[0] = x.T @ dy`, which changes a list and not the gradient.

    >>> from minisam.nn import Linear
    >>> rng = np.random.default_rng(0)
    >>> params = [rng.standard_normal((3, 2)), rng.standard_normal(2)]
    >>> gradcheck(Linear(3, 2), rng.standard_normal((4, 3)), params, rng) < 1e-8
    True
    """
    y, cache = layer.forward(params, x, Env(key=(0,), running=running))
    cotangent = rng.standard_normal(y.shape)
    grads = _unassigned(params)
    dx = layer.backward(params, cache, cotangent, list(grads), Env())
    _require_assigned(layer, grads)

    def weighted(*arrays: Array) -> float:
        env = Env(key=(0,), running=running)
        return float(np.sum(cotangent * layer.forward(list(arrays[1:]), arrays[0], env)[0]))

    errors = []
    arrays = [x, *params]
    for i, gradient in enumerate([dx, *grads]):

        def along(value: Array, i: int = i) -> float:
            return weighted(*arrays[:i], value, *arrays[i + 1 :])

        if gradient.shape != arrays[i].shape:
            raise ValueError(f"expected a gradient of shape {arrays[i].shape}, got {gradient.shape}")
        errors.append(relative_error(gradient, numerical_gradient(along, arrays[i]), RESOLVED))
    return float(np.max(errors))  # unlike max(), it lets a NaN through


def hvpcheck(layer: Layer, x: Array, params: list[Array], rng: np.random.Generator, running=None) -> float:
    """The largest relative error of a layer's tangents: the rates of y, of dx and of every parameter's gradient.

    Everything moves along random directions at once, dy included, and the rates are compared with
    differences of forward and backward, whose error is O(h⁴). Arguments as for `gradcheck`.

    >>> from minisam.nn import Tanh
    >>> rng = np.random.default_rng(0)
    >>> hvpcheck(Tanh(), rng.standard_normal((4, 3)), [], rng) < 1e-8
    True
    """
    y, _ = layer.forward(params, x, Env(key=(0,), running=running))
    at = [x, *params, rng.standard_normal(y.shape)]
    dots = [rng.standard_normal(array.shape) for array in at]

    def passes(t: float) -> list[Array]:
        x, *params, dy = (array + t * dot for array, dot in zip(at, dots, strict=True))
        env = Env(key=(0,), running=running)
        y, cache = layer.forward(params, x, env)
        grads = _unassigned(params)
        dx = layer.backward(params, cache, dy, list(grads), env)
        _require_assigned(layer, grads)
        return [y.copy(), dx, *grads]

    env = Env(key=(0,), running=running)
    _, cache = layer.forward(params, x.copy(), env)
    _, dy = layer.linearize(params, cache, at[-1], env)
    here, (x_dot, *params_dot, dy_dot) = Point(params, cache, dy), dots
    y_dot, cache_dot = layer.tangent(here, params_dot, x_dot, Env())
    grads_dot = _unassigned(params)
    dx_dot = layer.backward_tangent(here, Motion(params_dot, cache_dot, dy_dot), list(grads_dot), Env())
    _require_assigned(layer, grads_dot, "backward_tangent")
    h = 3e-4
    near = zip(*(passes(t) for t in (-2 * h, -h, h, 2 * h)), strict=True)
    slopes = [(8 * (c - b) - (d - a)) / (12 * h) for a, b, c, d in near]
    exact = [y_dot, dx_dot, *grads_dot]
    return float(np.max([relative_error(*pair, RESOLVED) for pair in zip(exact, slopes, strict=True)]))


def losscheck(loss: Loss, outputs: Array, y: Array) -> float:
    """The relative error of a loss's gradient with respect to the outputs (N, n_out) float64, and of its tangent.

    >>> from minisam.nn import MeanSquaredError
    >>> losscheck(MeanSquaredError(), np.eye(2), np.ones((2, 2))) < 1e-8
    True
    """
    h, dot = 1e-5, np.cos(np.arange(outputs.size)).reshape(outputs.shape)  # some direction
    change = (loss(outputs + h * dot, y)[1] - loss(outputs - h * dot, y)[1]) / (2 * h)
    of_gradient = relative_error(loss(outputs, y)[1], numerical_gradient(lambda z: loss(z, y)[0], outputs))
    return max(of_gradient, relative_error(loss.tangent(outputs, y, dot), change, RESOLVED))
