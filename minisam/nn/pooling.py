"""Pooling: one value for each window of an image (NHWC). These layers have no parameters."""

from dataclasses import dataclass

import numpy as np

from minisam import kernels
from minisam.checks import Count
from minisam.nn.layer import FixedSlope, Shape

_BYTE = np.dtype(np.uint8)


@dataclass(frozen=True)
class _Pool2d(FixedSlope):
    """Windows of size × size, `stride` apart (by default side by side), none across the border.

    x is (N, H, W, C), y is (N, H_out, W_out, C) with H_out = (H - size) // stride + 1.
    """

    size: Count
    stride: Count = 0  # 0 means size

    def __post_init__(self) -> None:
        if self.stride == 0:
            object.__setattr__(self, "stride", self.size)
        super().__post_init__()

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3 or min(input_shape[:2]) < self.size:
            raise self.refuse(f"(N, H ≥ {self.size}, W ≥ {self.size}, C)", input_shape)
        H, W, C = input_shape
        return ((H - self.size) // self.stride + 1, (W - self.size) // self.stride + 1, C)


@dataclass(frozen=True)
class MaxPool2d(_Pool2d):
    """The largest value of each size × size window; its gradient goes to the (first) maximum.

    x is (N, H, W, C), y is (N, H_out, W_out, C) with H_out = (H - size) // stride + 1.

    Raises:
        ValueError: size or stride below 1, or size above 16 (one byte stores a place in the window).

    >>> MaxPool2d(2).output_shape((32, 32, 16))
    (16, 16, 16)
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size > 16:
            raise ValueError(f"MaxPool2d size must be at most 16, got {self.size}")

    def forward(self, params, x, env):
        shape = (len(x), *self.output_shape(x.shape[1:]))
        y, winner = env.arena.empty(shape, x.dtype), env.arena.empty(shape, _BYTE)
        kernels.max_pool2d(x, self.size, self.stride, y, winner)
        return y, (winner, x.shape)

    def backward(self, params, cache, dy, grads, env):
        winner, x_shape = cache
        dx = env.arena.empty(x_shape, dy.dtype)
        return kernels.max_pool2d_grad(dy, winner, self.size, self.stride, dx)

    def tangent(self, at, params_dot, x_dot, env):
        winner, _ = at.cache  # the winners stay the winners
        y_dot = env.arena.empty(winner.shape, x_dot.dtype)
        kernels.max_pool2d_picked(x_dot, winner, self.size, self.stride, out=y_dot)
        return y_dot, None


@dataclass(frozen=True)
class AvgPool2d(_Pool2d):
    """The mean of each size × size window.

    x is (N, H, W, C), y is (N, H_out, W_out, C) with H_out = (H - size) // stride + 1.

    >>> AvgPool2d(3, stride=2).output_shape((32, 32, 16))
    (15, 15, 16)
    """

    def forward(self, params, x, env):
        y = env.arena.empty((len(x), *self.output_shape(x.shape[1:])), x.dtype)
        return kernels.avg_pool2d(x, self.size, self.stride, y), x.shape

    def backward(self, params, x_shape, dy, grads, env):
        dx = env.arena.empty(x_shape, dy.dtype)
        return kernels.avg_pool2d_grad(dy, self.size, self.stride, dx)

    def tangent(self, at, params_dot, x_dot, env):
        return self.forward([], x_dot, env)[0], None


@dataclass(frozen=True)
class GlobalAvgPool2d(FixedSlope):
    """The mean over the whole image: (N, H, W, C) to (N, C).

    >>> GlobalAvgPool2d().output_shape((8, 8, 64))
    (64,)
    """

    def output_shape(self, input_shape):
        if len(input_shape) != 3:
            raise self.refuse("(N, H, W, C)", input_shape)
        return input_shape[2:]

    def forward(self, params, x, env):
        return x.mean(axis=(1, 2)), x.shape

    def backward(self, params, x_shape, dy, grads, env):
        dx = env.arena.empty(x_shape, dy.dtype)
        dx[...] = dy[:, None, None] / (x_shape[1] * x_shape[2])
        return dx

    def tangent(self, at, params_dot, x_dot, env):
        return self.forward([], x_dot, env)[0], None
