"""Dropout: in training, each activation is set to 0 with some probability."""

from dataclasses import dataclass

import numpy as np

from minisam.checks import BelowOne
from minisam.nn.layer import FixedSlope


@dataclass(frozen=True)
class Dropout(FixedSlope):
    """y = x ⊙ mask, whose entries are 0 with probability `rate`, otherwise 1 / (1 - rate).

    The mask follows from the evaluation's key, so both of SAM's passes see the same one. In evaluation,
    when running statistics are given, y = x, which is the mean over all masks. (Srivastava et al. 2014
    rescale in evaluation instead.)

    Raises:
        ValueError: rate outside [0, 1); in training, at a rate above 0, an evaluation without a key.

    >>> Dropout(0.5).output_shape((128,))
    (128,)
    """

    rate: BelowOne = 0.5

    def forward(self, params, x, env):
        if env.running is not None or self.rate == 0:
            return x, None
        keep = env.rng().random(x.shape, np.float32) >= self.rate
        mask = keep * x.dtype.type(1 / (1 - self.rate))
        return np.multiply(x, mask, out=env.arena.empty(x.shape, x.dtype)), mask

    def backward(self, params, mask, dy, grads, env):
        return dy if mask is None else np.multiply(dy, mask, out=env.arena.empty(dy.shape, dy.dtype))

    def tangent(self, at, params_dot, x_dot, env):
        return self.backward([], at.cache, x_dot, [], env), None
