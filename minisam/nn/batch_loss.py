"""The objective that a network makes of one minibatch."""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from minisam.checks import Array, Count, require
from minisam.kernels.cores import single_threaded_blas
from minisam.nn.env import Env
from minisam.nn.losses import Loss, SoftmaxCrossEntropy
from minisam.nn.network import Sequential
from minisam.objective import Evaluation, HessianMap, Objective


@dataclass(frozen=True, eq=False)
class BatchLoss(Objective):
    """The mean loss of a network over one batch, as a function of theta.

    x is (N, *input_shape) in theta's dtype; y holds the loss's targets, by default labels (N,).
    Batches that share an `env` reuse the same scratch memory. By default this is the loss of a training
    step: BatchNorm uses the batch's statistics, and Dropout the masks of `key`, integers such as
    (seed, stream, epoch, step). With running statistics `stats` it is the loss of evaluation.

    Raises:
        ValueError, TypeError: shapes, dtypes or labels that do not fit the network; x or targets not finite.

    >>> from minisam.nn import Linear, Sequential
    >>> net = Sequential([Linear(2, 3)], input_shape=(2,))
    >>> batch = BatchLoss(net, np.eye(2, dtype=np.float32), np.array([0, 1]))
    >>> at_theta = batch(np.zeros(net.n_params, np.float32))
    >>> round(at_theta.loss, 4), at_theta.grad.shape, at_theta.accuracy
    (1.0986, (9,), 0.5)
    """

    net: Sequential
    x: Array
    y: Array
    loss: Loss = SoftmaxCrossEntropy()
    env: Env = field(default_factory=Env)
    key: tuple[int, ...] | None = None
    stats: Array | None = None

    def __post_init__(self) -> None:
        self.net.check_inputs(self.x)
        self.loss.check(self.y, self.n, self.net.output_shape)
        if self.stats is not None:
            self.net.check_stats(self.stats)

    @property
    def n(self) -> int:
        return len(self.x)

    def value(self, theta: Array) -> float:
        self.net.check_theta(theta, self.x.dtype)
        self.env.begin(self.key, self.stats)
        with single_threaded_blas():
            return self.loss(self.net.chain.forward(self.net.views(theta), self.x, self.env)[0], self.y)[0]

    def __call__(self, theta: Array) -> Evaluation:
        self.net.check_theta(theta, self.x.dtype)
        self.env.begin(self.key, self.stats)
        self.env.examples += self.n
        with single_threaded_blas():
            value, grad, outputs = self.net.evaluate(theta, self.x, self.y, self.loss, self.env)
        accuracy = float(np.mean(outputs.argmax(axis=1) == self.y)) if self.y.ndim == 1 else math.nan
        return Evaluation(value, grad, accuracy, np.concatenate([np.empty(0, grad.dtype), *self.env.stats]))

    def hessian(self, theta: Array) -> HessianMap:
        """v ↦ H v at theta: forward and backward are computed once, then each v costs about two gradients."""
        here = self.net.linearize(theta, self.x, self.y, self.loss, self.key, self.stats, self.env)
        self.env.examples += self.n

        def product(v: Array) -> Array:
            self.env.examples += 2 * self.n
            return here.hvp(v)

        return product

    def split(self, m: int) -> "list[BatchLoss]":
        require("micro-batch size m", m, Count)
        if m >= self.n:
            return [self]  # with the same masks
        parts = [(slice(i, i + m), self.key and (*self.key, i)) for i in range(0, self.n, m)]
        return [replace(self, x=self.x[part], y=self.y[part], key=key) for part, key in parts]
