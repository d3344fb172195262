"""A network: layers in sequence, over one flat parameter vector.

All parameters lie one after another in `theta`. Layers see views of it, so the network can be
read as a composition of layers, while an optimizer, a perturbation, a checkpoint or a Hessian
sees one vector and nothing else.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from minisam.checks import Array, Count, Range, require, require_array, require_finite
from minisam.nn.chain import Chain
from minisam.nn.env import Env
from minisam.nn.layer import Layer, Shape
from minisam.nn.linearized import Linearized
from minisam.nn.losses import Loss, SoftmaxCrossEntropy
from minisam.nn.reordering import economical

_LAYER = Annotated[Layer, Range("an instance, such as ReLU()", Layer, lambda _: True)]


class Sequential:
    """A network: a chain of layers with an input shape, as a function of one vector theta (P,) and x (N, *input_shape).

    theta and x share one dtype, float32 or float64 (for gradient checks); every result keeps it.
    `layers` are as you wrote them; `chain` has those that run, which `economical` may have reordered.

    Raises:
        ValueError: a layer that is none, or that cannot take the output of the one before it.
        TypeError: an input_shape that is not a tuple.

    >>> from minisam.nn import Linear, ReLU
    >>> net = Sequential([Linear(4, 8), ReLU(), Linear(8, 3)], input_shape=(4,))
    >>> theta = net.init(np.random.default_rng(0))
    >>> theta.shape, theta.dtype
    ((67,), dtype('float32'))
    >>> net.forward(theta, np.ones((5, 4), np.float32)).shape
    (5, 3)
    """

    def __init__(self, layers: Sequence[Layer], input_shape: Shape) -> None:
        if not isinstance(input_shape, tuple):
            raise TypeError(f"input_shape must be a tuple, such as (32, 32, 3) or (4,), got {input_shape!r}")
        for size in input_shape:
            require("a size in input_shape", size, Count)
        self.layers = tuple(require("a layer", layer, _LAYER) for layer in layers)
        self.chain = Chain(economical(self.layers))
        self.shapes = Chain(self.layers).shapes(input_shape)
        self.input_shape, self.output_shape = self.shapes[0], self.shapes[-1]  # of one example
        sizes = [sum(math.prod(shape) for shape in layer.param_shapes.values()) for layer in self.layers]
        ends = np.cumsum([0, *sizes]).tolist()
        self.slices = [slice(a, b) for a, b in itertools.pairwise(ends)]  # of theta, one per layer
        self.n_params: int = ends[-1]
        self.n_stats = sum(map(len, self.chain.init_stats(np.float32)))  # BatchNorm's running statistics

    def init(self, rng: np.random.Generator, dtype: Any = np.float32) -> Array:
        """A new theta (P,): W ~ N(0, 2 / fan_in) and b = 0 (He et al. 2015), layer by layer."""
        theta = np.empty(self.n_params, dtype)
        self.chain.init(self.views(theta), rng)
        return theta

    def init_stats(self, dtype: Any = np.float32) -> Array:
        """Running statistics (n_stats,) to start from: mean 0 and variance 1 for every channel."""
        return np.concatenate([np.empty(0, dtype), *self.chain.init_stats(dtype)])

    def views(self, theta: Array) -> list[Array]:
        """Every parameter (or gradient) as a shaped view of a flat vector (P,)."""
        return self.chain.views(theta)

    def params(self, theta: Array) -> list[list[Array]]:
        """Each layer's parameters (or gradients) as shaped views of a flat vector (P,)."""
        return Chain(self.layers).by_layer(self.views(theta))

    def forward(self, theta: Array, x: Array, env: Env | None = None) -> Array:
        """The outputs (N, *output_shape) for inputs x (N, *input_shape)."""
        self.check(theta, x)
        return self.chain.forward(self.views(theta), x, env or Env())[0]

    def loss_and_grad(self, theta: Array, x: Array, y: Array, loss: Loss | None = None) -> tuple[float, Array]:
        """Mean loss over a batch (nats for cross-entropy) and its gradient (P,).

        The textbook form of `BatchLoss`. The default loss is SoftmaxCrossEntropy().

        Raises:
            ValueError, TypeError: shapes, dtypes or labels that do not fit; x not finite.
        """
        loss = loss or SoftmaxCrossEntropy()
        self.check(theta, x)
        loss.check(y, len(x), self.output_shape)
        return self.evaluate(theta, x, y, loss, Env())[:2]

    def linearize(
        self, theta: Array, x: Array, y: Array, loss: Loss | None = None, key=None, stats=None, env: Env | None = None
    ) -> Linearized:
        """The loss at theta, and its Hessian there as a map: `.hvp(v)` for many v.

        Dropout needs a `key`, as in `BatchLoss`; with running statistics `stats` it is the loss of
        evaluation. Products use the memory of `env`.

        Raises:
            ValueError, TypeError: as `loss_and_grad` does.
        """
        loss = loss or SoftmaxCrossEntropy()
        self.check(theta, x)
        loss.check(y, len(x), self.output_shape)
        return Linearized(self.chain, theta, x, y, loss, env or Env(), key, stats)

    def hvp(self, theta: Array, v: Array, x: Array, y: Array, loss: Loss | None = None) -> Array:
        """H v (P,), with H the Hessian of the mean loss over a batch; v is (P,) like theta."""
        return self.linearize(theta, x, y, loss).hvp(v)

    def evaluate(self, theta: Array, x: Array, y: Array, loss: Loss, env: Env) -> tuple[float, Array, Array]:
        """Forward, loss, backward: the loss, its gradient (P,) and the outputs, in env's memory."""
        grad = self.chain.unassigned_like(theta)
        outputs, caches = self.chain.forward(self.views(theta), x, env)
        value, dy = loss(outputs, y)
        self.chain.backward_at_input(self.views(theta), caches, dy, self.views(grad), env)
        self.chain.require_assigned(grad)
        return value, grad, outputs

    def predict(self, theta: Array, x: Array, batch_size: int = 200, stats: Array | None = None) -> Array:
        """The most probable class (N,) int64 of each input, batch by batch.

        BatchNorm uses its running statistics, `stats` (n_stats,); Dropout lets everything through.

        Raises:
            ValueError, TypeError: shapes or dtypes that do not fit; x or theta not finite.
            FloatingPointError: outputs that are not finite, since the weights or statistics are too large.
        """
        self.check(theta, x)
        require_finite("theta", theta)
        require("batch_size", batch_size, Count)
        running = self.check_stats(stats)
        env, classes = Env(), np.empty(len(x), np.int64)
        for i in range(0, len(x), batch_size):
            env.begin(running=running)
            with np.errstate(over="ignore", invalid="ignore"):
                outputs, _ = self.chain.forward(self.views(theta), x[i : i + batch_size], env)
            if not np.isfinite(outputs).all():
                raise FloatingPointError(f"the outputs are not finite, with weights of up to {np.abs(theta).max():.1e}")
            np.argmax(outputs, axis=1, out=classes[i : i + batch_size])
        return classes

    def check_stats(self, stats: Array | None) -> Array:
        """The running statistics, or none of them for None; ValueError unless they are (n_stats,)."""
        stats = np.empty(0) if stats is None else stats
        require_array("stats", stats)
        if stats.shape != (self.n_stats,):
            raise ValueError(f"expected running statistics stats of shape ({self.n_stats},), got {stats.shape}")
        return stats

    def check_inputs(self, x: Array) -> None:
        """Raise ValueError or TypeError unless x is a batch of finite inputs of this network."""
        require_array("x", x)
        if x.shape[1:] != self.input_shape or not len(x):
            expected = ", ".join(["N ≥ 1", *map(str, self.input_shape)])
            hint = ": x[None] is a batch of one" if x.shape == self.input_shape else ""
            raise ValueError(f"expected x of shape ({expected}), got {x.shape}{hint}")
        if x.dtype not in (np.float32, np.float64):
            raise TypeError(f"expected x in theta's dtype, float32 or float64, got {x.dtype}")
        require_finite("x", x)

    def check_theta(self, theta: Array, dtype: np.dtype) -> None:
        """Raise ValueError or TypeError unless theta is a vector of this network, for inputs of this dtype."""
        require_array("theta", theta)
        if theta.shape != (self.n_params,) or not theta.flags.c_contiguous:
            raise ValueError(f"expected theta as a contiguous vector ({self.n_params},), got {theta.shape}")
        if theta.dtype not in (np.float32, np.float64):
            raise TypeError(f"expected theta in float32 or float64, got {theta.dtype}")
        if dtype != theta.dtype:
            raise TypeError(f"expected x in theta's dtype {theta.dtype}, got {dtype}")

    def check(self, theta: Array, x: Array) -> None:
        """Raise ValueError or TypeError, naming the argument, unless theta and x fit, and x is finite.

        theta need not be: it is what an optimizer makes, and weights that are not finite have such a loss.
        """
        self.check_inputs(x)
        self.check_theta(theta, x.dtype)

    def summary(self) -> str:
        """A table of layers: output shape, parameters and multiply-adds of one forward pass.

        >>> from minisam.nn import Linear
        >>> print(Sequential([Linear(4, 3)], input_shape=(4,)).summary())
        layer                                 output        parameters   multiply-adds
        Linear(n_in=4, n_out=3)               (3,)                  15              12
        total                                                       15              12
        """
        rows = [("layer", "output", "parameters", "multiply-adds")]
        total = 0
        for i, layer in enumerate(self.layers):
            work = layer.multiply_adds(self.shapes[i])
            total += work
            n_params = self.slices[i].stop - self.slices[i].start
            rows.append((repr(layer), str(self.shapes[i + 1]), f"{n_params:,}", f"{work:,}"))
        rows.append(("total", "", f"{self.n_params:,}", f"{total:,}"))
        width = max(36, *(len(row[0]) for row in rows))
        return "\n".join(f"{a:<{width}}  {b:<13}{c:>11}{d:>16}" for a, b, c, d in rows)
