"""Layers one behind the other: what a network is, and what a residual block has inside."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from minisam.nn.convolution import Conv2d
from minisam.nn.layer import Array, Layer, Shape
from minisam.nn.layers import Linear, ReLU
from minisam.nn.normalisation import BatchNorm
from minisam.nn.pooling import MaxPool2d


@dataclass
class Trace:
    """What a pass leaves behind: every layer's cache and, from a backward whose env keeps it, its dy."""

    caches: list[Any]
    dys: list[Any]


@dataclass(frozen=True)
class Chain(Layer):
    """y = layerₖ(… layer₂(layer₁(x))), and y = x where there are no layers.

    `layers` are those that run: `economical` may have moved a ReLU or let it overwrite its input.

    >>> Chain((Linear(4, 8), ReLU(), Linear(8, 3))).output_shape((4,))
    (3,)
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", economical(self.layers))

    @property
    def param_shapes(self):
        return {f"{i}.{name}": s for i, layer in enumerate(self.layers) for name, s in layer.param_shapes.items()}

    def init_stats(self, dtype):
        return [array for layer in self.layers for array in layer.init_stats(dtype)]

    def split(self, arrays: Sequence[Array]) -> list[list[Array]]:
        """The parameters (or gradients) of each layer, out of those of all."""
        if not arrays:
            return [[] for _ in self.layers]
        rest = iter(arrays)
        return [[next(rest) for _ in layer.param_shapes] for layer in self.layers]

    def shapes(self, input_shape: Shape) -> list[Shape]:
        """shapes[i] goes into layer i, shapes[i + 1] comes out; ValueError where they do not fit."""
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
        for layer, own in zip(self.layers, self.split(params), strict=True):
            layer.init(own, rng)

    def forward(self, params, x, env):
        caches = []
        for layer, own in zip(self.layers, self.split(params), strict=True):
            x, cache = layer.forward(own, x, env)
            caches.append(cache)
        return x, Trace(caches, [None] * len(caches))

    def _last(self, wants_dx: bool) -> int:
        """Where a backward ends: unless dL/dx is wanted, at the first layer that has parameters."""
        with_params = (i for i, layer in enumerate(self.layers) if layer.param_shapes)
        return 0 if wants_dx else next(with_params, len(self.layers))

    def backward(self, params, trace, dy, grads, env, wants_dx=True):
        own, own_grads, last = self.split(params), self.split(grads), self._last(wants_dx)
        used, spare = (env, env) if env.keeps else env.turns
        for i in reversed(range(last, len(self.layers))):
            wants = wants_dx or i > last
            if env.keeps:
                trace.dys[i] = dy
            else:
                spare.arena.reset()
            dx = self.layers[i].backward(own[i], trace.caches[i], dy, own_grads[i], spare, wants)
            if wants and not np.may_share_memory(dx, dy):  # dy is read: its memory is free
                used, spare = spare, used
            dy = dx
        return dy if wants_dx else None

    def tangent(self, params, params_dot, trace, x_dot, env):
        caches_dot: list[Any] = [None] * len(self.layers)
        each = zip(self.layers, self.split(params), self.split(params_dot), trace.caches, strict=True)
        for i, (layer, own, own_dot, cache) in enumerate(each):
            if x_dot is not None or own:  # else nothing has moved yet
                x_dot, caches_dot[i] = layer.tangent(own, own_dot, cache, x_dot, env)
        return x_dot, caches_dot

    def backward_tangent(self, params, params_dot, trace, caches_dot, dy, dy_dot, grads_dot, env, wants_dx=True):
        own, own_dot, own_grads_dot = (self.split(arrays) for arrays in (params, params_dot, grads_dot))
        last = self._last(wants_dx)
        for i in reversed(range(last, len(self.layers))):
            cache, dot = trace.caches[i], caches_dot[i]
            moved = own[i], own_dot[i], cache, dot, trace.dys[i], dy_dot, own_grads_dot[i], env
            dy_dot = self.layers[i].backward_tangent(*moved, wants_dx or i > last)
        return dy_dot if wants_dx else None


@dataclass(frozen=True, repr=False)
class Residual(Layer):
    """y = f(x) + s(x): f is `block`, s the layers of `shortcut`, or the identity (He et al. 2016, eq. 1, 2).

    A block learns what to add to its input. A shortcut, such as a 1×1 convolution, projects x to
    the block's shape where that is another.

    Raises:
        ValueError: a block and a shortcut whose outputs differ in shape.

    >>> Residual((Conv2d(8, 8, 3), ReLU(), Conv2d(8, 8, 3))).output_shape((4, 4, 8))
    (4, 4, 8)
    """

    block: Sequence[Layer]
    shortcut: Sequence[Layer] = ()

    def __repr__(self) -> str:
        return f"Residual(block of {len(self.block)} layers, shortcut of {len(self.shortcut)})"

    @cached_property
    def paths(self) -> Chain:
        """Both, each as one layer."""
        return Chain((Chain(tuple(self.block)), Chain(tuple(self.shortcut))))

    @property
    def param_shapes(self):
        return self.paths.param_shapes

    def init_stats(self, dtype):
        return self.paths.init_stats(dtype)

    def init(self, params, rng):
        self.paths.init(params, rng)

    def output_shape(self, input_shape):
        y, s = (path.output_shape(input_shape) for path in self.paths.layers)
        if y != s:
            raise ValueError(f"Residual expected a block and a shortcut of one output shape, got {y} and {s}")
        return y

    def multiply_adds(self, input_shape):
        return sum(path.multiply_adds(input_shape) for path in self.paths.layers)

    def forward(self, params, x, env):
        paths = zip(self.paths.layers, self.paths.split(params), strict=True)
        (f, f_caches), (s, s_caches) = (path.forward(own, x, env) for path, own in paths)
        return np.add(f, s, out=env.arena.empty(f.shape, f.dtype)), (x.shape, f_caches, s_caches)

    def backward(self, params, cache, dy, grads, env, wants_dx=True):
        x_shape, *caches = cache
        own, own_grads = self.paths.split(params), self.paths.split(grads)
        dx = env.arena.empty(x_shape, dy.dtype)
        dx[...] = 0
        for i, path in enumerate(self.paths.layers):
            dx += path.backward(own[i], caches[i], dy, own_grads[i], env)
        return dx

    def tangent(self, params, params_dot, cache, x_dot, env):
        x_shape, *caches = cache
        own, own_dot = self.paths.split(params), self.paths.split(params_dot)
        x_dot = np.zeros(x_shape, params[0].dtype) if x_dot is None else x_dot
        moved = [p.tangent(own[i], own_dot[i], caches[i], x_dot, env) for i, p in enumerate(self.paths.layers)]
        (f_dot, f_caches_dot), (s_dot, s_caches_dot) = moved
        return f_dot + s_dot, (f_caches_dot, s_caches_dot)

    def backward_tangent(self, params, params_dot, cache, caches_dot, dy, dy_dot, grads_dot, env, wants_dx=True):
        own, own_dot, own_grads = (self.paths.split(arrays) for arrays in (params, params_dot, grads_dot))
        return sum(
            path.backward_tangent(own[i], own_dot[i], cache[1 + i], caches_dot[i], dy, dy_dot, own_grads[i], env)
            for i, path in enumerate(self.paths.layers)
        )


def economical(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The same function, ReLU by ReLU with less work and memory.

    max and ReLU commute, gradients included, and behind a MaxPool2d there are fewer numbers to
    clip. Where the layer before does not keep its output for its backward, ReLU may overwrite it.
    """
    layers = list(layers)
    for i in range(1, len(layers)):
        if isinstance(layers[i - 1], ReLU) and isinstance(layers[i], MaxPool2d):
            layers[i - 1], layers[i] = layers[i], layers[i - 1]
    for i in range(1, len(layers)):
        if isinstance(layers[i - 1], Linear | Conv2d | MaxPool2d | BatchNorm) and isinstance(layers[i], ReLU):
            layers[i] = ReLU(in_place=True)
    return tuple(layers)
