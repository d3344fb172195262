"""BatchNorm: activations with mean 0 and variance 1 over the batch, channel by channel."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minisam.checks import Count, Positive
from minisam.kernels.threads import parallel
from minisam.nn.layer import Array, Layer

_ROWS = 1 << 13  # that a thread takes at once


@dataclass(frozen=True)
class BatchNorm(Layer):
    """y = γ x̂ + β with x̂ = (x - μ) / √(σ² + eps), per channel (Ioffe & Szegedy 2015, algorithm 1).

    In training μ and σ² are the batch's, over all axes but the last; in evaluation they are running
    averages. The layer keeps none: a training pass puts its (μ, σ²) into env.stats, and who trains
    folds in those of the pass it means. SAM's two passes so leave one trace, that of the pass at θ.
    As in PyTorch σ² divides by n in x̂, and by n - 1 in the statistics. γ starts at 1, β at 0.

    Parameters are gamma (C,) and beta (C,); x and y are (N, …, C).

    >>> BatchNorm(16).output_shape((8, 8, 16))
    (8, 8, 16)
    """

    channels: Count
    eps: Positive = 1e-5

    MOMENTUM: ClassVar = 0.1  # the weight of a new batch in the running averages (PyTorch's)

    @property
    def param_shapes(self):
        return {"gamma": (self.channels,), "beta": (self.channels,)}

    def init_stats(self, dtype):
        return [np.zeros(self.channels, dtype), np.ones(self.channels, dtype)]  # μ, σ²

    def init(self, params, rng):
        params[0][...], params[1][...] = 1, 0

    def output_shape(self, input_shape):
        if input_shape[-1] != self.channels:
            raise self.refuse(f"(N, …, {self.channels})", input_shape)
        return input_shape

    def forward(self, params, x, env):
        gamma, beta = params
        rows, n = x.reshape(-1, self.channels), math.prod(x.shape[:-1])
        if env.running is None:
            mean = _sum(lambda i, j: rows[i:j].sum(axis=0), n) / n
            var = _sum(lambda i, j: np.square(rows[i:j] - mean).sum(axis=0), n) / n
            env.stats += [mean, var * (n / max(n - 1, 1))]
        else:
            mean, var, env.running = np.split(env.running.astype(x.dtype), [self.channels, 2 * self.channels])
        inverse_std = 1 / np.sqrt(var + self.eps)
        x_hat, y = (env.arena.empty(rows.shape, x.dtype) for _ in range(2))

        def normalise(i: int, j: int) -> None:
            np.subtract(rows[i:j], mean, out=x_hat[i:j])
            x_hat[i:j] *= inverse_std
            np.multiply(x_hat[i:j], gamma, out=y[i:j])
            y[i:j] += beta

        parallel(normalise, n, _ROWS)
        return y.reshape(x.shape), (x_hat, inverse_std, env.running is None)

    def backward(self, params, cache, dy, grads, env, wants_dx=True):
        """With batch statistics, which depend on x as well,

        dx = γ / √(σ² + eps) · (dy - (Σ dy + x̂ Σ dy x̂) / n), summed over the batch.
        """
        (gamma, _), (dgamma, dbeta), (x_hat, inverse_std, of_batch) = params, grads, cache
        rows, n = dy.reshape(x_hat.shape), len(x_hat)
        dbeta[...] = _sum(lambda i, j: rows[i:j].sum(axis=0), n)
        dgamma[...] = _sum(lambda i, j: (rows[i:j] * x_hat[i:j]).sum(axis=0), n)
        dx = env.arena.empty(rows.shape, dy.dtype)

        def part(i: int, j: int) -> None:
            dx[i:j] = rows[i:j]
            if of_batch:
                dx[i:j] -= dbeta / n
                dx[i:j] -= x_hat[i:j] * (dgamma / n)
            dx[i:j] *= gamma * inverse_std

        parallel(part, n, _ROWS)
        return dx.reshape(dy.shape)


def _sum(part, n: int) -> Array:
    """Σ part(start, stop) over runs of rows, the runs in order."""
    return np.sum(parallel(part, n, _ROWS), axis=0)
