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
        """Assign dL/dparams into grads and return dL/dx.

        With wants_dx=False (the network's first layer with parameters) it may return None instead.
        """
        raise NotImplementedError(f"{type(self).__name__} must define backward")

    def refuse(self, expected: str, got: Shape) -> ValueError:
        got_text = ", ".join(["N", *map(str, got)])
        return ValueError(f"{type(self).__name__} expected x of shape {expected}, got ({got_text})")


def he_normal(params: list[Array], rng: np.random.Generator) -> None:
    """W ~ N(0, 2 / fan_in), b = 0: keeps the variance through ReLU (He et al. 2015, eq. 10)."""
    W, b = params
    fan_in = math.prod(W.shape[:-1])
    W[...] = rng.standard_normal(W.shape) * math.sqrt(2 / fan_in)
    b[...] = 0
