"""BatchNorm: activations with mean 0 and variance 1 over the batch, channel by channel."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minisam import kernels
from minisam.checks import Count, Positive
from minisam.nn.layer import Rectifying


@dataclass(frozen=True)
class BatchNorm(Rectifying):
    """y = γ x̂ + β with x̂ = (x - μ) / √(σ² + eps), per channel (Ioffe & Szegedy 2015, algorithm 1).

    In training μ and σ² are the batch's, over all axes but the last; in evaluation they are running
    averages. The layer stores neither: a training pass puts its (μ, σ²) into env.stats, and the training
    loop updates the averages with those of the pass at θ, so SAM's second pass leaves no trace. As in
    PyTorch σ² divides by n in x̂, and by n - 1 in the statistics. A channel whose values are all equal
    has x̂ = 0. γ starts at 1, β at 0.

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
        return [np.broadcast_to(np.array(value, dtype), self.channels) for value in (0, 1)]  # μ and σ², in no memory

    def init(self, params, rng):
        params[0][...], params[1][...] = 1, 0

    def output_shape(self, input_shape):
        if input_shape[-1] != self.channels:
            raise self.refuse(f"(N, …, {self.channels})", input_shape)
        return input_shape

    def forward(self, params, x, env):
        gamma, beta = params
        n = x.size / self.channels
        if env.running is None:
            some = x.reshape(-1, self.channels)[:: math.ceil(n / 64)]
            near = some.mean(axis=0, dtype=np.float64).astype(x.dtype)  # to μ: little cancels below
            total, squares = kernels.channel_sums(x, near, x, near)
            mean = near + total / n
            var = np.maximum(squares / n - (total / n) ** 2, 0)  # E[(x - near)²] - (μ - near)²
            unbiased = np.minimum(var * (n / max(n - 1, 1)), np.finfo(x.dtype).max)  # float32 ends at 3e38
            env.stats += [mean.astype(x.dtype), unbiased.astype(x.dtype)]
        else:
            n = math.inf  # μ and σ² do not depend on this batch: 1 / n is 0 in backward
            mean, var, env.running = np.split(env.running, [self.channels, 2 * self.channels])
        inverse_std = 1 / np.sqrt(var + self.eps)
        scale = gamma * inverse_std
        y = env.arena.empty(x.shape, x.dtype)
        kernels.channel_affine(x, scale, x, 0, beta - scale * mean, y, self.floor)
        return y, (x, mean, inverse_std, n)

    def backward(self, params, cache, dy, grads, env):
        """dx = γ / √(σ² + eps) · (dy - (Σ dy + x̂ Σ dy x̂) / n), with sums over the batch.

        The two sums are there because the batch's μ and σ² depend on x, too; for running ones 1 / n is 0.
        """
        x, mean, inverse_std, n = cache
        dbeta, products = kernels.channel_sums(x, mean, dy)
        dgamma = products * inverse_std
        grads[0][...], grads[1][...] = dgamma, dbeta
        scale = params[0] * inverse_std
        slope = -scale * dgamma * inverse_std / n
        dx = env.arena.empty(dy.shape, dy.dtype)
        return kernels.channel_affine(dy, scale, x, slope, -scale * dbeta / n - slope * mean, out=dx)

    def tangent(self, at, params_dot, x_dot, env):
        """y = s x + β - s μ with s = γ r and r = (σ² + eps)^(-½), whose rate is -r³ Σ (x - μ) x_dot / n."""
        (gamma, _), (gamma_dot, beta_dot), (x, mean, inverse_std, n) = at.params, params_dot, at.cache
        total, products = kernels.channel_sums(x, mean, x_dot)
        mean_dot, inverse_dot = total / n, -(inverse_std**3) * products / n
        scale, scale_dot = gamma * inverse_std, gamma_dot * inverse_std + gamma * inverse_dot
        shift_dot = beta_dot - scale_dot * mean - scale * mean_dot
        y_dot = env.arena.empty(x.shape, x.dtype)
        kernels.channel_affine(x_dot, scale, x, scale_dot, shift_dot, out=y_dot)
        return y_dot, (x_dot, mean_dot, inverse_dot)

    def backward_tangent(self, at, moving, grads_dot, env):
        """Every line of `backward`, differentiated."""
        (gamma, _), (gamma_dot, _), (x, mean, inverse_std, n) = at.params, moving.params_dot, at.cache
        (x_dot, mean_dot, inverse_dot), dy, dy_dot = moving.cache_dot, at.dy, moving.dy_dot
        (dbeta, products), (dbeta_dot, products_dot) = (kernels.channel_sums(x, mean, g) for g in (dy, dy_dot))
        products_dot += kernels.channel_sums(x_dot, mean_dot, dy)[1]
        dgamma, dgamma_dot = products * inverse_std, products_dot * inverse_std + products * inverse_dot
        grads_dot[0][...], grads_dot[1][...] = dgamma_dot, dbeta_dot
        scale, scale_dot = gamma * inverse_std, gamma_dot * inverse_std + gamma * inverse_dot
        slope = -scale * dgamma * inverse_std / n
        slope_dot = -((scale_dot * dgamma + scale * dgamma_dot) * inverse_std + scale * dgamma * inverse_dot) / n
        shift_dot = -(scale_dot * dbeta + scale * dbeta_dot) / n - slope_dot * mean - slope * mean_dot
        dx_dot, by_x = (env.arena.empty(x.shape, x.dtype) for _ in range(2))
        kernels.channel_affine(dy_dot, scale, dy, scale_dot, shift_dot, out=dx_dot)
        dx_dot += kernels.channel_affine(x_dot, slope, x, slope_dot, 0, out=by_x)
        return dx_dot
