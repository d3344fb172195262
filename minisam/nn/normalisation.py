"""BatchNorm: activations with mean 0 and variance 1 over the batch, channel by channel."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minisam.checks import Count, Positive
from minisam.kernels.threads import parallel
from minisam.nn.layer import Array, Layer

_BLOCK = 1 << 16  # numbers that a thread takes at once


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
        rows, n = self._rows(x), x.size // self.channels
        if env.running is None:
            mean = self._sum(lambda i, j: rows[i:j], rows) / n
            wide = self._wide(mean, rows)
            var = self._sum(lambda i, j: np.square(rows[i:j] - wide), rows) / n
            env.stats += [mean, var * (n / max(n - 1, 1))]
        else:
            mean, var, env.running = np.split(env.running.astype(x.dtype), [self.channels, 2 * self.channels])
        inverse_std = 1 / np.sqrt(var + self.eps)
        mean, scale, gamma, beta = (self._wide(v, rows) for v in (mean, inverse_std, *params))
        x_hat, y = (env.arena.empty(rows.shape, x.dtype) for _ in range(2))

        def normalise(i: int, j: int) -> None:
            np.subtract(rows[i:j], mean, out=x_hat[i:j])
            x_hat[i:j] *= scale
            np.multiply(x_hat[i:j], gamma, out=y[i:j])
            y[i:j] += beta

        parallel(normalise, len(rows), self._run(rows))
        return y.reshape(x.shape), (x_hat, inverse_std, n if env.running is None else math.inf)

    def backward(self, params, cache, dy, grads, env, wants_dx=True):
        """With batch statistics, which depend on x as well (with running ones, 1 / n counts as 0),

        dx = γ / √(σ² + eps) · (dy - (Σ dy + x̂ Σ dy x̂) / n), the sums over the batch.
        """
        x_hat, inverse_std, n = cache
        rows, dx = dy.reshape(x_hat.shape), env.arena.empty(x_hat.shape, dy.dtype)
        grads[0][...] = dgamma = self._sum(lambda i, j: rows[i:j] * x_hat[i:j], rows)
        grads[1][...] = dbeta = self._sum(lambda i, j: rows[i:j], rows)
        scale, slope, shift = (self._wide(v, rows) for v in (params[0] * inverse_std, dgamma / n, dbeta / n))

        def part(i: int, j: int) -> None:
            np.multiply(x_hat[i:j], slope, out=dx[i:j])
            np.subtract(rows[i:j], dx[i:j], out=dx[i:j])
            dx[i:j] -= shift
            dx[i:j] *= scale

        parallel(part, len(rows), self._run(rows))
        return dx.reshape(dy.shape)

    # Loops over C numbers would be short: an image's row, W·C numbers, is taken at once.

    def _rows(self, x: Array) -> Array:
        return x.reshape(-1, math.prod(x.shape[-2:]) if x.ndim > 2 else self.channels)

    def _wide(self, v: Array, rows: Array) -> Array:
        return np.tile(v, rows.shape[1] // self.channels)

    def _run(self, rows: Array) -> int:
        return max(1, _BLOCK // rows.shape[1])

    def _sum(self, part: Callable[[int, int], Array], rows: Array) -> Array:
        """Σ over the batch of what part gives for some rows, in blocks, and those in order."""
        partial = parallel(lambda i, j: part(i, j).sum(axis=0), len(rows), self._run(rows))
        return np.sum(partial, axis=0).reshape(-1, self.channels).sum(axis=0)
