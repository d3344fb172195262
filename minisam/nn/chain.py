"""Layers one after another, as one layer: what a network is, and each path of a residual block."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from minisam.checks import Array
from minisam.nn.layer import UNASSIGNED, Layer, Motion, Point, Shape


@dataclass(frozen=True)
class Chain(Layer):
    """y = layerₖ(… layer₂(layer₁(x))), or y = x if there are no layers.

    Its parameters are those of its layers, in order; its cache is the list of theirs.

    >>> from minisam.nn import Linear, ReLU
    >>> Chain((Linear(4, 8), ReLU(), Linear(8, 3))).output_shape((4,))
    (3,)
    """

    layers: tuple[Layer, ...]

    @cached_property
    def param_shapes(self):
        return {f"{i}.{name}": s for i, layer in enumerate(self.layers) for name, s in layer.param_shapes.items()}

    def init_stats(self, dtype):
        return [array for layer in self.layers for array in layer.init_stats(dtype)]

    def views(self, theta: Array) -> list[Array]:
        """Every parameter (or gradient) as a shaped view of a flat vector (P,)."""
        return [theta[a:b].reshape(shape) for (a, b), shape in self._places]

    @cached_property
    def _places(self) -> list[tuple[tuple[int, int], Shape]]:
        """Where in theta each parameter begins and ends, and its shape."""
        ends = np.cumsum([0, *(math.prod(shape) for shape in self.param_shapes.values())]).tolist()
        return list(zip(itertools.pairwise(ends), self.param_shapes.values(), strict=True))

    @cached_property
    def _starts(self) -> list[int]:
        return [a for (a, _), _ in self._places]

    def unassigned_like(self, theta: Array) -> Array:
        """A vector (P,) for gradients, uninitialised but for a mark at the beginning of each parameter's."""
        grad = np.empty_like(theta)
        grad[self._starts] = UNASSIGNED
        return grad

    def require_assigned(self, grad: Array, method: str = "backward") -> None:
        """Raise ValueError, by name, if a layer has left a mark: memory that nobody wrote is no gradient."""
        marked = grad[self._starts] == UNASSIGNED
        if marked.any():
            i, own = next((i, own) for i, own in enumerate(self.by_layer(marked.tolist())) if any(own))
            raise ValueError(f"layer {i}: {self.layers[i].unassigned(own.index(True), method)}")

    def by_layer(self, arrays: Sequence[Any]) -> list[list[Any]]:
        """The parameters (or gradients) of all layers, grouped by layer."""
        return [list(arrays[a:b]) for a, b in self._ends]

    @cached_property
    def _ends(self) -> list[tuple[int, int]]:
        """Which parameters are each layer's: the first, and the first that is not."""
        return list(
            itertools.pairwise(itertools.accumulate((len(layer.param_shapes) for layer in self.layers), initial=0))
        )

    def shapes(self, input_shape: Shape) -> list[Shape]:
        """shapes[i] goes into layer i, shapes[i + 1] comes out; ValueError names the layer that does not fit."""
        shapes = [tuple(input_shape)]
        for i, layer in enumerate(self.layers):
            try:
                shapes.append(layer.output_shape(shapes[-1]))
            except ValueError as error:
                raise ValueError(f"layer {i}: {error}") from None
        return shapes

    def output_shape(self, input_shape):
        return self.shapes(input_shape)[-1]

    def multiply_adds(self, input_shape):
        return sum(layer.multiply_adds(s) for layer, s in zip(self.layers, self.shapes(input_shape), strict=False))

    def init(self, params, rng):
        for layer, own in zip(self.layers, self.by_layer(params), strict=True):
            layer.init(own, rng)

    def forward(self, params, x, env):
        caches = []
        for layer, own in zip(self.layers, self.by_layer(params), strict=True):
            x, cache = layer.forward(own, x, env)
            caches.append(cache)
        return x, caches

    def backward(self, params, caches, dy, grads, env):
        return self._backward(params, caches, dy, grads, env, stop=0)

    def backward_at_input(self, params, caches, dy, grads, env):
        first = self._first
        if first < len(self.layers):
            dy = self._backward(params, caches, dy, grads, env, stop=first + 1)
            own, own_grads = self.by_layer(params)[first], self.by_layer(grads)[first]
            self.layers[first].backward_at_input(own, caches[first], dy, own_grads, env)

    @property
    def _first(self) -> int:
        """The first layer with parameters: for those before it x is data, too."""
        return next((i for i, layer in enumerate(self.layers) if layer.param_shapes), len(self.layers))

    def _backward(self, params, caches, dy, grads, env, stop: int) -> Array:
        """The backward passes of the layers from the last to number `stop`."""
        own, own_grads = self.by_layer(params), self.by_layer(grads)
        # Each dL/dx is read once, by the layer below: two arenas can alternate.
        free, taken = env.alternating
        for i in reversed(range(stop, len(self.layers))):
            free.arena.reset()
            dx = self.layers[i].backward(own[i], caches[i], dy, own_grads[i], free)
            if not np.may_share_memory(dx, dy):  # else dx is a view of dy, and `free` is still free
                free, taken = taken, free
            dy = dx
        return dy

    def linearize(self, params, caches, dy, env):
        own, kept = self.by_layer(params), [None] * len(self.layers)
        for i in reversed(range(len(self.layers))):
            dy, kept[i] = self.layers[i].linearize(own[i], caches[i], dy, env)
        return dy, kept

    def tangent(self, at, params_dot, x_dot, env):
        return self._tangent(at, params_dot, x_dot, env, first=-1)

    def tangent_at_input(self, at, params_dot, x_dot, env):
        y_dot, caches_dot = self._tangent(at, params_dot, x_dot, env, self._first)
        return y_dot, caches_dot[self._first :]  # as far back as `backward_tangent` has to go

    def _tangent(self, at, params_dot, x_dot, env, first: int) -> tuple[Array, list[Any]]:
        caches_dot = []
        points = zip(self.layers, self._points(at), self.by_layer(params_dot), strict=True)
        for i, (layer, point, own_dot) in enumerate(points):
            tangent = layer.tangent_at_input if i == first else layer.tangent
            x_dot, cache_dot = tangent(point, own_dot, x_dot, env)
            caches_dot.append(cache_dot)
        return x_dot, caches_dot

    def _points(self, at: Point) -> list[Point]:
        return [Point(*own) for own in zip(self.by_layer(at.params), at.cache, at.dy, strict=True)]

    def backward_tangent(self, at, moving, grads_dot, env):
        points, dy_dot = self._points(at), moving.dy_dot
        own_dot, own_grads_dot = self.by_layer(moving.params_dot), self.by_layer(grads_dot)
        for i in range(-1, -len(moving.cache_dot) - 1, -1):  # from the end: the first layers may be missing
            of_layer = Motion(own_dot[i], moving.cache_dot[i], dy_dot)
            dy_dot = self.layers[i].backward_tangent(points[i], of_layer, own_grads_dot[i], env)
        return dy_dot
