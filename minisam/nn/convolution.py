"""Convolution: the same small window of weights, applied everywhere in an image (NHWC)."""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from minisam import kernels
from minisam.checks import Count
from minisam.nn.layer import Bilinear, Rectifying, Shape, he_normal


@dataclass(frozen=True)
class Conv2d(Bilinear, Rectifying):
    """y[n,r,c,f] = b[f] + Σᵢⱼₖ x[n, r·stride + i - above, c·stride + j - before, k] W[i,j,k,f].

    Parameters are W (kH, kW, c_in, c_out) and b (c_out,); x is (N, H, W, c_in) and zero outside
    its borders, y is (N, H_out, W_out, c_out). `size` is one number or (kH, kW); `padding` is the
    zeros on each side, one number or (rows, columns), or "same": y is ⌈H/stride⌉ × ⌈W/stride⌉ and the
    zeros are shared out evenly, an odd one going below or to the right (TensorFlow's SAME; at stride 1
    also PyTorch's).

    Raises:
        ValueError: a size, stride or channel count below 1, a negative or unknown padding.

    >>> Conv2d(3, 16, 3).output_shape((32, 32, 3))
    (32, 32, 16)
    >>> Conv2d(3, 16, (5, 3), stride=2, padding=0).output_shape((32, 32, 3))
    (14, 15, 16)
    """

    c_in: Count
    c_out: Count
    size: int | tuple[int, int]
    stride: Count = 1
    padding: int | tuple[int, int] | str = "same"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _is_pair(self.size, least=1):
            raise ValueError(f"Conv2d size must be one or two integers ≥ 1, got {self.size!r}")
        if self.padding != "same" and not _is_pair(self.padding, least=0):
            raise ValueError(f'Conv2d padding must be one or two integers ≥ 0 or "same", got {self.padding!r}')

    @property
    def param_shapes(self) -> dict[str, Shape]:
        return {"W": (*_pair(self.size), self.c_in, self.c_out), "b": (self.c_out,)}

    def init(self, params, rng):
        he_normal(params, rng)

    def _geometry(self, image: Shape) -> tuple[Shape, tuple[int, int]]:
        """(H_out, W_out), and the zeros (above, before) the image."""
        axes = zip(image, _pair(self.size), _pair(self.padding), strict=True)
        sizes, zeros = zip(*(self._along(*axis) for axis in axes), strict=True)
        return sizes, (zeros[0], zeros[1])

    def _along(self, n: int, k: int, pad: Any) -> tuple[int, int]:
        """The output's size along one axis, and the zeros before it."""
        if pad == "same":
            n_out = -(-n // self.stride)
            return n_out, max((n_out - 1) * self.stride + k - n, 0) // 2
        return (n + 2 * pad - k) // self.stride + 1, pad

    def output_shape(self, input_shape):
        if len(input_shape) != 3 or input_shape[2] != self.c_in:
            raise self.refuse(f"(N, H, W, {self.c_in})", input_shape)
        sizes, _ = self._geometry(input_shape[:2])
        if min(sizes) < 1:
            axes = zip(_pair(self.size), _pair(self.padding), strict=True)
            H, W = (1 if pad == "same" else k - 2 * pad for k, pad in axes)
            raise self.refuse(f"(N, H ≥ {H}, W ≥ {W}, {self.c_in})", input_shape)
        return (*sizes, self.c_out)

    def multiply_adds(self, input_shape):
        kH, kW = _pair(self.size)
        return math.prod(self.output_shape(input_shape)) * kH * kW * self.c_in

    def affine(self, params, x, env, floor=-math.inf):
        W, b = params
        sizes, zeros = self._geometry(x.shape[1:3])
        y = env.arena.empty((len(x), *sizes, self.c_out), x.dtype)
        return kernels.conv2d(x, W, b, self.stride, zeros, y, floor)

    def forward(self, params, x, env):
        return self.affine(params, x, env, self.floor), x

    def weight_gradient(self, x, dy, grads):
        _, zeros = self._geometry(x.shape[1:3])
        kernels.conv2d_weight_grad(x, dy, self.stride, zeros, *grads)

    def input_gradient(self, params, x, dy, env):
        W, _ = params
        _, zeros = self._geometry(x.shape[1:3])
        return kernels.conv2d_input_grad(dy, W, self.stride, zeros, out=env.arena.empty(x.shape, x.dtype))


def _is_pair(value: Any, least: int) -> bool:
    values: Any = _pair(value)
    return len(values) == 2 and all(isinstance(v, Integral) and type(v) is not bool and int(v) >= least for v in values)


def _pair(value: Any) -> Any:
    return value if isinstance(value, tuple) else (value, value)
