"""The objective that a network makes of one minibatch."""

import numpy as np

from minisam.checks import Count, require
from minisam.kernels.threads import single_threaded_blas
from minisam.nn.env import Env
from minisam.nn.layer import Array
from minisam.nn.losses import Loss, SoftmaxCrossEntropy
from minisam.nn.network import Sequential
from minisam.objective import Evaluation


class BatchLoss:
    """The mean loss of a network over one batch, as a function of theta.

    x is (N, *input_shape) in theta's dtype; y is what the loss takes, labels (N,) by default.
    With an `env` of the caller's, batch after batch reuses the same scratch memory.

    Raises:
        ValueError, TypeError: shapes, dtypes or labels that do not fit the network.

    >>> from minisam.nn import Linear, Sequential
    >>> net = Sequential([Linear(2, 3)], input_shape=(2,))
    >>> batch = BatchLoss(net, np.eye(2, dtype=np.float32), np.array([0, 1]))
    >>> loss, grad, accuracy = batch(np.zeros(net.n_params, np.float32))
    >>> round(loss, 4), grad.shape, accuracy
    (1.0986, (9,), 0.5)
    """

    def __init__(self, net: Sequential, x: Array, y: Array, loss: Loss | None = None, env: Env | None = None) -> None:
        self.net, self.x, self.y = net, x, y
        self.loss = loss or SoftmaxCrossEntropy()
        self.env = env or Env()
        self.loss.check(y, len(x), net.output_shape)

    @property
    def n(self) -> int:
        return len(self.x)

    def __call__(self, theta: Array) -> Evaluation:
        self.net.check(theta, self.x)
        self.env.arena.reset()
        self.env.examples += self.n
        with single_threaded_blas():  # once, instead of in every kernel
            value, grad, outputs = self.net.evaluate(theta, self.x, self.y, self.loss, self.env)
        if self.y.ndim == 1:
            accuracy = float(np.mean(outputs.argmax(axis=1) == self.y))
            return Evaluation(value, grad, accuracy)
        return Evaluation(value, grad)

    def split(self, m: int) -> "list[BatchLoss]":
        require("micro-batch size m", m, Count)
        starts = range(0, self.n, m)
        parts = [(self.x[i : i + m], self.y[i : i + m]) for i in starts]
        return [BatchLoss(self.net, x, y, self.loss, self.env) for x, y in parts]
