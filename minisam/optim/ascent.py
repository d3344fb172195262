"""Where is the loss worst nearby? The directions in which SAM climbs.

To first order L(θ + ε) rises by gᵀε, most for the ε̂ that maximises this over a ball ‖ε‖ ≤ ρ. An ascent
returns a direction and its norm, in the norm that defines the ball. So ε̂ = ρ · direction / norm lies on
the surface. A norm of 0 means that there is nowhere to climb.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from minisam import kernels
from minisam.checks import Array, AtLeastOne, BelowOne, Checked, Natural, NonNegative, Positive, Range
from minisam.rng import Stream, keyed_rng

_Function = Callable[[Array, Array, int], tuple[Array, float]]  # (theta, g, step) to (direction, norm)
Ascent = Annotated[_Function, Range("a function, such as Ball(2)", Callable, lambda v: not isinstance(v, type))]


@dataclass(frozen=True)
class Ball(Checked):
    """The maximiser over ‖ε‖ₚ ≤ ρ: ε̂ = ρ sign(g) |g|^(q-1) / ‖g‖_q^(q-1), 1/p + 1/q = 1.

    Foret et al. 2021, eq. 2; there gᵀε̂ = ρ ‖g‖_q. p = 2 is SAM's own, ρ g / ‖g‖₂; p = ∞ moves every
    parameter by ρ sign(g); p = 1 only the one with the (first) largest |g|. g is (P,).

    Raises:
        ValueError: p not a number ≥ 1.

    >>> g = np.array([3.0, -4.0])
    >>> [(direction / norm).round(3).tolist() for direction, norm in (Ball(p)(g, g) for p in (1, 2, math.inf))]
    [[0.0, -1.0], [0.6, -0.8], [1.0, -1.0]]
    """

    p: AtLeastOne = 2

    def __call__(self, theta: Array, g: Array, step: int = 0) -> tuple[Array, float]:
        if self.p == 2:
            return g, kernels.norm(g)
        largest, p = float(np.abs(g).max(initial=0)), float(self.p)
        if largest == 0:
            return g, 0.0
        if p == 1:
            alone = np.arange(len(g)) == np.argmax(np.abs(g))
            return np.sign(g) * alone, 1.0
        scaled = np.abs(g) / largest  # no power of it overflows
        q = p / (p - 1) if p < math.inf else 1.0
        return np.sign(g) * scaled ** (q - 1), float((scaled**q).sum(dtype=np.float64)) ** (1 - 1 / q)


@dataclass(frozen=True)
class Adaptive(Checked):
    """ASAM's ball, ‖T⁻¹ε‖₂ ≤ ρ with T = |θ| + η: ε̂ = ρ T² g / ‖T g‖₂ (Kwon et al. 2021, algorithm 1).

    Large weights move farther, so scaling one layer up and the next one down changes nothing, up
    to η. Without η a weight at 0, such as every bias at the start, would not be perturbed. rho is
    relative to the weights: on CIFAR-10 the paper uses 0.5 for ASAM and 0.05 for SAM. T scales every
    parameter, biases and BatchNorm's γ and β included; in the authors' code T = 1 for those named bias (b, β).
    theta and g are (P,).

    Raises:
        ValueError: eta not above 0.

    >>> direction, norm = Adaptive(eta=1.0)(np.array([1.0, 0.0]), np.array([1.0, 1.0]))
    >>> direction.tolist(), round(norm**2, 9)
    ([4.0, 1.0], 5.0)
    """

    eta: Positive = 0.01

    def __call__(self, theta: Array, g: Array, step: int = 0) -> tuple[Array, float]:
        largest = float(np.abs(g).max(initial=0))
        if largest == 0:
            return g, 0.0
        T = np.abs(theta) + float(self.eta)
        Tg = T * (g / largest)  # with a gradient of any size: T² g alone might leave float32's range
        return T * Tg, kernels.norm(Tg)  # ‖T⁻¹ T² g‖ = ‖T g‖


@dataclass(frozen=True)
class RandomDirection(Checked):
    """A direction drawn uniformly, whatever the gradient: the control experiment for SAM.

    Keyed by seed and step: all micro-batches and ascent steps of a step share one direction. On average the
    loss does not rise along it, to first order.

    >>> direction, norm = RandomDirection(seed=0)(np.zeros(3), np.ones(3), 7)
    >>> round(float(np.linalg.norm(direction / norm)), 6)
    1.0
    """

    seed: Natural = 0

    def __call__(self, theta: Array, g: Array, step: int = 0) -> tuple[Array, float]:
        z = keyed_rng(self.seed, Stream.ASCENT, 0, step).standard_normal(len(theta)).astype(theta.dtype)
        return z, kernels.norm(z)


@dataclass
class Friendly(Checked):
    """Friendly SAM: climb along what sets this batch apart, ε̂ = ρ d / ‖d‖₂ (Li et al. 2024, algorithm 1).

        m ← λ m + (1 - λ) g,   d = g - σ m

    m starts at 0 and estimates the full gradient from the last 1/(1 - λ) or so steps that climb.
    Subtracting it leaves the batch's noise, which the paper finds to be the part of ε̂ that helps. Each
    step enters m once, with the gradient at its start: this m includes the current g, as algorithm 1 has
    it, while the authors' code subtracts the m of before, which starts at the first g. g, m and d are (P,).

    Raises:
        ValueError: a negative sigma, lmbda outside [0, 1).

    >>> Friendly(sigma=1.0, lmbda=0.6)(np.zeros(2), np.array([1.0, 2.0]))[0].round(6).tolist()
    [0.6, 1.2]
    """

    sigma: NonNegative = 1.0
    lmbda: BelowOne = 0.6
    m: Array | float = field(default=0.0, init=False)
    last: int = field(default=-1, init=False)  # the step that entered m last

    def __call__(self, theta: Array, g: Array, step: int = 0) -> tuple[Array, float]:
        if step != self.last:
            self.m, self.last = float(self.lmbda) * self.m + (1 - float(self.lmbda)) * g, step
        d = g - float(self.sigma) * self.m
        return d, kernels.norm(d)
