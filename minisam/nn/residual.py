"""Residual blocks: two paths from x, added up."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from minisam import kernels
from minisam.checks import Array
from minisam.nn.chain import Chain
from minisam.nn.env import Env
from minisam.nn.layer import Layer, Motion, Point, Rectifying
from minisam.nn.reordering import economical


@dataclass(frozen=True, repr=False)
class Residual(Rectifying):
    """y = f(x) + s(x): f is `block`; s is the layers of `shortcut`, or the identity (He et al. 2016, eq. 1, 2).

    A block learns what to add to its input. A shortcut, such as a 1×1 convolution, projects x to
    the shape of the block's output if that differs from x's.

    Raises:
        ValueError: a block and a shortcut whose outputs differ in shape.

    >>> from minisam.nn import Conv2d, ReLU
    >>> Residual((Conv2d(8, 8, 3), ReLU(), Conv2d(8, 8, 3))).output_shape((4, 4, 8))
    (4, 4, 8)
    """

    block: Sequence[Layer]
    shortcut: Sequence[Layer] = ()

    def __repr__(self) -> str:
        return f"Residual(block of {len(self.block)} layers, shortcut of {len(self.shortcut)})"

    @cached_property
    def paths(self) -> tuple[Chain, Chain]:
        """The block and the shortcut."""
        return Chain(economical(self.block)), Chain(economical(self.shortcut))

    def by_path(self, arrays: list[Array]) -> tuple[list[Array], list[Array]]:
        """The parameters (or gradients) of the block, and those of the shortcut."""
        n = len(self.paths[0].param_shapes)
        return arrays[:n], arrays[n:]

    @cached_property
    def param_shapes(self):
        named = zip(("block", "shortcut"), self.paths, strict=True)
        return {f"{path}.{name}": shape for path, chain in named for name, shape in chain.param_shapes.items()}

    def init_stats(self, dtype):
        return [array for path in self.paths for array in path.init_stats(dtype)]

    def init(self, params, rng):
        for path, own in zip(self.paths, self.by_path(params), strict=True):
            path.init(own, rng)

    def output_shape(self, input_shape):
        y, s = (path.output_shape(input_shape) for path in self.paths)
        if y != s:
            raise ValueError(f"Residual expected a block and a shortcut of one output shape, got {y} and {s}")
        return y

    def multiply_adds(self, input_shape):
        return sum(path.multiply_adds(input_shape) for path in self.paths)

    def forward(self, params, x, env):
        passes = zip(self.paths, self.by_path(params), strict=True)
        (f, f_caches), (s, s_caches) = (path.forward(own, x, env) for path, own in passes)
        return self._sum(f, s, env, self.floor), (f_caches, s_caches)

    def backward(self, params, caches, dy, grads, env):
        (f, s), own, own_grads = self.paths, self.by_path(params), self.by_path(grads)
        through_f = f.backward(own[0], caches[0], dy, own_grads[0], env)
        through_s = s.backward(own[1], caches[1], dy, own_grads[1], env.beside)  # env still holds through_f
        return self._sum(through_f, through_s, env)  # x goes both ways: its gradients add up

    def linearize(self, params, caches, dy, env):
        each = zip(self.paths, self.by_path(params), caches, strict=True)
        (through_f, f_kept), (through_s, s_kept) = (path.linearize(own, cache, dy, env) for path, own, cache in each)
        return through_f + through_s, (f_kept, s_kept)

    def tangent(self, at, params_dot, x_dot, env):
        each = zip(self.paths, self._points(at), self.by_path(params_dot), strict=True)
        (f_dot, f_caches), (s_dot, s_caches) = (path.tangent(point, dot, x_dot, env) for path, point, dot in each)
        return f_dot + s_dot, (f_caches, s_caches)

    def backward_tangent(self, at, moving, grads_dot, env):
        motions = zip(self.by_path(moving.params_dot), moving.cache_dot, (moving.dy_dot,) * 2, strict=True)
        each: Any = zip(self.paths, self._points(at), motions, self.by_path(grads_dot), strict=True)
        through_f, through_s = (path.backward_tangent(p, Motion(*dot), grads, env) for path, p, dot, grads in each)
        return through_f + through_s

    def _sum(self, f: Array, s: Array, env: Env, floor: float = -math.inf) -> Array:
        return kernels.channel_affine(f, 1, s, 1, 0, env.arena.empty(f.shape, f.dtype), floor)

    def _points(self, at: Point) -> list[Point]:
        return [Point(*own) for own in zip(self.by_path(at.params), at.cache, at.dy, strict=True)]
